"""The head start of the small SmolVLA: questions about pictures, and that it learns to answer them."""

import pytest
import torch

pytest.importorskip("mujoco")
from lerobot.common.envs.koch_sim.demonstration import EVALUATION_SEEDS
from lerobot.common.envs.koch_sim.pointing import PointingSet, make_pointing_set, place_in_picture
from lerobot.common.envs.koch_sim.scene import COLOURS
from lerobot.common.envs.koch_sim.world import KochWorld
from lerobot.common.policies.smolvla.grounding import Grounding, pointing_loss
from lerobot.scripts import pretrain_vlm


@pytest.fixture(scope="module")
def grounding():
    torch.manual_seed(0)
    return Grounding(pretrain_vlm.make_policy())


def test_a_place_is_where_the_picture_shows_the_cube():
    world = KochWorld("A")
    for seed in (49_001, 49_002, 49_003):
        world.reset(seed)
        colour = torch.tensor(COLOURS[world.layout.colours[0]])
        picture = torch.from_numpy(world.render("laptop").copy()).float() / 255
        near = torch.cosine_similarity(picture, colour.expand_as(picture), dim=-1)
        vivid = (near > 0.97) & (picture.amax(-1) - picture.amin(-1) > 0.3)
        down, across = torch.nonzero(vivid).float().mean(0).tolist()
        found = place_in_picture(world, "laptop", world.cube_pose()[:3])
        assert found == pytest.approx((100 * across / 640, 100 * down / 480), abs=2.5)
    assert place_in_picture(world, "laptop", (0, 5.0, 0)) in {(99, y) for y in range(100)} | {
        (0, y) for y in range(100)
    }
    world.close()


def test_every_cube_of_a_moment_is_asked_for_and_no_layout_is_an_evaluation():
    data = make_pointing_set(2, 2, (48, 64), 49_000)
    assert data.pictures["phone"].shape == (4, 3, 48, 64) and data.pictures["phone"].dtype is torch.uint8
    assert len(data.words) == len(data.sentences) == len(data.moments) == len(data.places)
    assert data.moments.unique().tolist() == [0, 1, 2, 3]
    assert all(word in sentence for word, sentence in zip(data.words, data.sentences, strict=True))
    assert ((data.places >= 0) & (data.places <= 99)).all()
    for first, count in ((pretrain_vlm.SEED0, 1000), (pretrain_vlm.HELD_OUT_SEED0, pretrain_vlm.HELD_OUT)):
        assert first > EVALUATION_SEEDS[-1] and first + count < 2**31
    assert pretrain_vlm.HELD_OUT_SEED0 + pretrain_vlm.HELD_OUT <= pretrain_vlm.SEED0


def test_the_right_token_is_the_one_that_shows_the_place_and_the_edge_does_not_count():
    places = torch.tensor([[[10, 10]], [[60, 90]], [[0, 50]], [[50, 99]]])  # of a grid of 2 x 4: tokens 0 and 6
    scores = torch.full((4, 8), -9.0)
    scores[0, 0], scores[1, 6] = 9.0, 9.0
    loss, right = pointing_loss([scores], places, (2, 4))
    assert right.tolist() == [True, True] and loss < 1e-3
    loss, right = pointing_loss([scores.roll(1, 1)], places, (2, 4))
    assert right.tolist() == [False, False] and loss > 5


def test_shifted_and_mirrored_pictures_keep_their_places():
    torch.manual_seed(3)
    for _ in range(8):
        picture = torch.zeros(1, 3, 96, 128)
        picture[..., 48:50, 30:32] = 1.0
        pictures, places = [picture], torch.tensor([[[24, 51]]])
        pretrain_vlm.augment(pictures, places)
        down, across = torch.nonzero(pictures[0][0, 0]).float().mean(0).tolist()
        assert places[0, 0].tolist() == pytest.approx([100 * across / 128, 100 * down / 96], abs=2)


def test_scores_depend_on_the_word_and_on_the_sentence(grounding):
    pictures, which = [torch.rand(2, 3, 96, 128) * 2 - 1 for _ in range(2)], torch.tensor([0, 0, 1])
    rows, cols = grounding.grid
    with torch.no_grad():
        match = grounding.match(pictures, which, ["red", "cyan", "red"])
        named = grounding.named(pictures, which, ["the red cube", "the cyan cube", "the red cube, please"])
    for scores in (match, named):
        assert [tuple(one.shape) for one in scores] == [(3, rows * cols)] * 2
        assert not torch.allclose(scores[0][0], scores[0][1])


@pytest.mark.parametrize("stage", ["match", "named"])
def test_it_learns_to_point_at_what_is_named(stage):
    torch.manual_seed(0)
    data = make_pointing_set(1, 1, (96, 128), 49_000)
    ground = Grounding(pretrain_vlm.make_policy())
    ground.balance()
    pictures, which, places = pretrain_vlm.batch_of(data, list(range(len(data.words))))
    questions = {"match": (ground.match, data.words), "named": (ground.named, data.sentences)}
    scores, asked = questions[stage]
    optimizer = torch.optim.AdamW([p for part in ground.split_parameters() for p in part], lr=1e-3)
    losses = []
    for _ in range(8):
        loss, _ = pointing_loss(scores(pictures, which, asked), places, ground.grid)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]


def test_every_moment_comes_once_per_round_with_at_most_so_many_questions():
    moments = torch.tensor([0, 0, 0, 1, 1, 2, 2, 2, 3, 3])
    data = PointingSet({"laptop": torch.zeros(4, 1)}, [""] * 10, [""] * 10, moments, torch.zeros(10, 1, 2))
    stream = pretrain_vlm.batches(data, 2, 2)
    seen = [next(stream) for _ in range(2)]
    assert sorted({int(moments[q]) for chosen in seen for q in chosen}) == [0, 1, 2, 3]
    assert all(len(chosen) == 4 and len(set(chosen)) == 4 for chosen in seen)
    assert len(next(pretrain_vlm.batches(data, 9, None))) == 10


def test_the_script_writes_what_training_starts_from(tmp_path, monkeypatch):
    from lerobot.common.policies.smolvla.modeling_smolvla import SmolVLAPolicy

    monkeypatch.setattr(pretrain_vlm, "HELD_OUT", 1)
    flags = [f"--output_dir={tmp_path / 'words'}", "--layouts=1", "--word_steps=1", "--sentence_steps=1"]
    assert 0 <= pretrain_vlm.pretrain(pretrain_vlm.parse(flags)) <= 1
    config = SmolVLAPolicy.from_pretrained(tmp_path / "words").config
    assert config.vlm_config["vision_config"]["stem_layers"] == 3 and config.pure_noise_share == 0.5
    with pytest.raises(FileExistsError, match="exists already"):
        pretrain_vlm.pretrain(pretrain_vlm.parse(flags))
    with pytest.raises(SystemExit):
        pretrain_vlm.parse(["--output_dir=x", "--layouts=0"])
