"""SmolVLA through the training command: fine-tuning, cameras, sentences, resuming, unfreezing."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from lerobot.common.datasets.lerobot_dataset import LeRobotDataset
from lerobot.common.policies.factory import make_pre_post_processors
from lerobot.common.policies.smolvla.modeling_smolvla import SmolVLAPolicy
from lerobot.common.policies.smolvla.processor_smolvla import make_smolvla_pre_post_processors
from lerobot.configs import parser
from lerobot.configs.policies import PreTrainedConfig
from lerobot.configs.train import TrainPipelineConfig
from lerobot.scripts.train import train

from .conftest import tiny_batch, tiny_config, tiny_policy

TASK = "Put the red cube in the tray."
RENAMED = {
    f"observation.images.{a}": f"observation.images.{b}" for a, b in (("laptop", "camera1"), ("phone", "camera2"))
}


@pytest.fixture(scope="session")
def dataset_root(tmp_path_factory):
    """Two short episodes with two cameras."""
    root = tmp_path_factory.mktemp("data") / "two_cameras"
    vector = {"dtype": "float32", "shape": (6,), "names": [f"joint_{i}" for i in range(6)]}
    picture = {"dtype": "image", "shape": (32, 40, 3), "names": ["height", "width", "channels"]}
    names = ("observation.images.laptop", "observation.images.phone")
    features = {"observation.state": vector, "action": vector, **dict.fromkeys(names, picture)}
    dataset = LeRobotDataset.create("two_cameras", 30, root=root, features=features, use_videos=False)
    rng = np.random.default_rng(0)
    for _ in range(2):
        for _ in range(4):
            vectors = {k: rng.normal(3, 2, size=6).astype(np.float32) for k in ("observation.state", "action")}
            pictures = {k: rng.integers(0, 255, (32, 40, 3), np.uint8) for k in names}
            dataset.add_frame({**vectors, **pictures, "task": TASK})
        dataset.save_episode()
    return root


@pytest.fixture
def checkpoint(tmp_path):
    """A policy with three cameras and its processors, as LeRobot writes them."""
    policy = tiny_policy(cameras=("camera1", "camera2", "camera3"))
    zeros = {"mean": torch.zeros(6), "std": torch.ones(6)}
    pre, post = make_smolvla_pre_post_processors(policy.config, {"observation.state": zeros, "action": zeros})
    for part in (policy, pre, post):
        part.save_pretrained(tmp_path / "base")
    return tmp_path / "base"


@pytest.fixture
def run(dataset_root, tmp_path):
    """Train with flags on top of a tiny run; returns the folder of the last checkpoint's model."""

    def run(*flags, name="run"):
        fixed = [f"--output_dir={tmp_path / name}", "--num_workers=0", "--batch_size=2", "--log_freq=1"]
        if "--resume=true" not in flags:
            fixed += [f"--dataset.root={dataset_root}"]
            fixed += ["--steps=1"] if not any(f.startswith("--steps") for f in flags) else []
        train(parser.parse(TrainPipelineConfig, [*fixed, *flags]))
        return tmp_path / name / "checkpoints" / "last" / "pretrained_model"

    return run


def steps_of(folder) -> dict:
    steps = json.loads((folder / "policy_preprocessor.json").read_text())["steps"]
    return {s["registry_name"]: s["config"] for s in steps}


def observation() -> dict:
    pictures = {k: torch.rand(3, 32, 40) for k in RENAMED}
    return {"observation.state": torch.zeros(6), **pictures, "task": TASK}


def test_a_fine_tune_fills_the_checkpoints_cameras_and_runs_on_the_datasets(run, checkpoint, caplog):
    caplog.set_level("INFO")
    folder = run(f"--policy.path={checkpoint}")
    assert "camera2  <-  observation.images.phone" in caplog.text and "camera3  <-  (empty)" in caplog.text
    assert f"Statistics come from the dataset, not from {checkpoint}" in caplog.text
    assert steps_of(folder)["rename_observations_processor"]["rename_map"] == RENAMED
    config = PreTrainedConfig.from_pretrained(folder)
    assert [k.rpartition(".")[2] for k in config.image_features] == ["camera1", "camera2", "empty_camera_0"]
    policy = SmolVLAPolicy.from_pretrained(folder, config=config)
    pre, post = make_pre_post_processors(config, folder)
    assert post(policy.select_action(pre(observation()))).shape == (1, 6)
    again = run(f"--policy.path={folder}", name="again")  # the renaming is the checkpoint's own by now
    assert steps_of(again)["rename_observations_processor"]["rename_map"] == RENAMED


def test_quantiles_that_the_dataset_does_not_store_are_computed(run, checkpoint, caplog):
    caplog.set_level("INFO")
    modes = {"VISUAL": "IDENTITY", "STATE": "QUANTILES", "ACTION": "QUANTILE10"}
    folder = run(f"--policy.path={checkpoint}", f"--policy.normalization_mapping={json.dumps(modes)}")
    assert "no quantiles of observation.state, action: computing them" in caplog.text
    (file,) = folder.glob("policy_preprocessor_step_*_normalizer_processor.safetensors")
    saved = load_file(file)
    assert (saved["action.q10"] < saved["action.mean"]).all() and (saved["action.mean"] < saved["action.q90"]).all()


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--rename_map=laptop", "--rename_map=laptop: expected names and values"),
        ('--policy.normalization_mapping={"STATE":"RANKS"}', "'RANKS' is not known here"),
    ],
)
def test_values_that_cannot_be_read_are_one_message(run, checkpoint, flag, message):
    with pytest.raises(ValueError, match=message):
        run(f"--policy.path={checkpoint}", flag)


def test_a_rename_map_overrides_the_order(run, checkpoint):
    chosen = {"observation.images.phone": "observation.images.camera1"}
    folder = run(f"--policy.path={checkpoint}", f"--rename_map={json.dumps(chosen)}")
    renamed = steps_of(folder)["rename_observations_processor"]["rename_map"]
    assert renamed == {**chosen, "observation.images.laptop": "observation.images.camera2"}


def test_a_legacy_checkpoint_without_processor_files_is_renamed_too(run, checkpoint):
    for file in checkpoint.glob("policy_p*"):
        file.unlink()
    weights = load_file(checkpoint / "model.safetensors")
    buffers = {"normalize_inputs.buffer_observation_state", "normalize_targets.buffer_action"}
    buffers = {f"{b}.{s}": torch.full((6,), 2.0) for b in buffers for s in ("mean", "std")}
    save_file({**weights, **buffers}, checkpoint / "model.safetensors")
    folder = run(f"--policy.path={checkpoint}")
    assert steps_of(folder)["rename_observations_processor"]["rename_map"] == RENAMED
    state = load_file(folder / "policy_preprocessor_step_5_normalizer_processor.safetensors")
    assert (state["action.mean"] - 2).abs().min() > 0.01  # the dataset's, not those of the checkpoint
    config = PreTrainedConfig.from_pretrained(checkpoint)
    renaming = {"rename_observations_processor": {"rename_map": RENAMED}}
    pre, _ = make_pre_post_processors(config, checkpoint, preprocessor_overrides=renaming)
    batch = pre(observation())
    assert "observation.images.camera2" in batch and (batch["observation.state"] == -1).all()


def test_sentences_of_training_are_kept_and_others_warn_once(run, checkpoint, caplog):
    folder = run(f"--policy.path={checkpoint}")
    assert json.loads((folder / "extras.json").read_text())["training_tasks"] == [TASK]
    pre, _ = make_pre_post_processors(PreTrainedConfig.from_pretrained(folder), folder)
    pre(observation())
    assert "never trained" not in caplog.text
    for _ in range(2):
        pre({**observation(), "task": "Wave."})
    assert caplog.text.count("never trained on the task 'Wave.'") == 1 and TASK in caplog.text


def test_typed_tokenizer_flags_reach_the_checkpoints_tokenizer(run, checkpoint, caplog):
    folder = run(
        f"--policy.path={checkpoint}", "--policy.tokenizer_max_length=6", "--policy.pad_language_to=max_length"
    )
    tokenizer = steps_of(folder)["tokenizer_processor"]
    assert (tokenizer["max_length"], tokenizer["padding"]) == (6, "max_length")
    assert "its beginning is cut off" in caplog.text


def test_another_tokenizer_can_be_named(checkpoint, tmp_path):
    config = PreTrainedConfig.from_pretrained(checkpoint)
    config.vlm_model_name = str(tmp_path / "nowhere")
    with pytest.raises((FileNotFoundError, ValueError), match="nowhere"):
        make_pre_post_processors(config, checkpoint)
    config.vlm_model_name = str(checkpoint / "tokenizer")
    pre, _ = make_pre_post_processors(config, checkpoint)
    assert pre(observation())["observation.language.tokens"].ndim == 2


FROM_ZERO = (
    "--policy.type=smolvla",
    "--policy.vlm_model_name=smolvla_mini",
    "--policy.num_vlm_layers=2",
    "--policy.chunk_size=4",
    "--policy.n_action_steps=4",
    "--policy.resize_imgs_with_padding=[32,32]",
    f"--policy.vlm_config={json.dumps(tiny_config().vlm_config)}",
)
EVERYTHING = ("--policy.freeze_vision_encoder=false", "--policy.train_expert_only=false")


def state_of(folder) -> tuple[dict, list]:
    state = folder.parent / "training_state"
    groups = json.loads((state / "optimizer_param_groups.json").read_text())
    return load_file(state / "optimizer_state.safetensors"), groups


def test_vision_is_unfrozen_late_at_a_rate_of_its_own_and_frozen_again(run, checkpoint, tmp_path):
    frozen = ("--policy.freeze_vision_encoder=true", "--policy.train_expert_only=true")
    first = run(f"--policy.path={checkpoint}", *frozen, "--steps=4", "--save_freq=2")
    early = tmp_path / "run" / "checkpoints" / "000002" / "pretrained_model"
    names = list(SmolVLAPolicy.from_pretrained(first).state_dict())
    vision = [i for i, n in enumerate(names) if ".vision_model." in n]
    before, groups = state_of(early)
    assert len(groups) == 1 and not any(f"state/{i}/exp_avg" in before for i in vision)
    thaw = (*EVERYTHING, "--policy.optimizer_lr_vision=1e-6", "--save_freq=1")
    run("--resume=true", f"--config_path={early / 'train_config.json'}", *thaw)
    late = tmp_path / "run" / "checkpoints" / "000003" / "pretrained_model"
    old, new = load_file(early / "model.safetensors"), load_file(late / "model.safetensors")
    moved = [i for i in vision if not torch.equal(old[names[i]], new[names[i]])]
    assert moved and max((old[names[i]] - new[names[i]]).abs().max() for i in moved) < 5e-6
    after, groups = state_of(late)
    assert [len(g["params"]) for g in groups] == [len(names) - len(vision), len(vision)]
    assert groups[0]["lr"] / groups[1]["lr"] == pytest.approx(100)
    expert = names.index("model.action_out_proj.weight") - len(vision)
    assert after[f"state/{expert}/step"] == 3  # its moments went on
    file = late / "train_config.json"
    again = run("--resume=true", f"--config_path={file}", "--policy.optimizer_lr_vision=null", *frozen)
    final, groups = state_of(again)
    assert len(groups) == 1 and final[f"state/{expert + len(vision)}/step"] == 4
    assert torch.equal(load_file(again / "model.safetensors")[names[moved[0]]], new[names[moved[0]]])


def test_a_finished_schedule_is_continued_only_when_asked_for(run, tmp_path):
    run(*FROM_ZERO, *EVERYTHING, "--steps=2")
    with pytest.raises(ValueError, match="2 of 2 steps.*--resume_finished=true.*--policy.path="):
        run("--resume=true", "--steps=3")
    run("--resume=true", "--steps=2")  # nothing to do, and nothing wrong
    assert run("--resume=true", "--steps=3", "--resume_finished=true").resolve().parent.name == "000003"


def test_a_typed_learning_rate_counts_when_resuming(run, tmp_path):
    run(*FROM_ZERO, *EVERYTHING, "--steps=4", "--save_freq=2")
    file = tmp_path / "run/checkpoints/000002/pretrained_model/train_config.json"
    folder = run("--resume=true", f"--config_path={file}", "--policy.optimizer_lr=1e-6")
    assert state_of(folder)[1][0]["lr"] <= 2.5e-6


def test_a_chunk_longer_than_an_episode_is_told_and_trained_on(run, caplog):
    folder = run(*FROM_ZERO, *EVERYTHING, "--policy.chunk_size=9")
    assert "chunk of 9 actions is longer than the shortest episode (4 frames)" in caplog.text
    assert load_file(folder / "model.safetensors")["model.action_out_proj.weight"].isfinite().all()


def test_from_zero_without_the_language_models_weights_stops(run):
    with pytest.raises(FileNotFoundError, match="--policy.path=.*--preset=smolvla_mini.*train_expert_only=false"):
        run(*FROM_ZERO)


def test_an_adapter_is_trained_resumed_and_merged(run, checkpoint, tmp_path):
    pytest.importorskip("peft")
    frozen = ("--policy.freeze_vision_encoder=true", "--policy.train_expert_only=true")
    peft = ("--peft.r=4", "--peft.merge=true")
    whole = run(f"--policy.path={checkpoint}", *frozen, *peft, "--steps=4", "--save_freq=2", name="whole")
    files = {p.name for p in whole.iterdir()}
    assert {"adapter_config.json", "adapter_model.safetensors"} <= files and "model.safetensors" not in files
    file = tmp_path / "whole/checkpoints/000002/pretrained_model/train_config.json"
    expected = load_file(whole / "adapter_model.safetensors")
    run("--resume=true", f"--config_path={file}", name="whole")
    found = load_file(whole / "adapter_model.safetensors")
    assert all(torch.equal(found[k], v) for k, v in expected.items())
    merged = tmp_path / "whole" / "merged_model"
    config = PreTrainedConfig.from_pretrained(merged)
    pre, _ = make_pre_post_processors(config, merged)
    batch, noise = pre(observation()), torch.ones(1, 5, 32)
    chunks = [SmolVLAPolicy.from_pretrained(f).predict_action_chunk(batch, noise) for f in (whole, merged)]
    torch.testing.assert_close(*chunks, atol=1e-5, rtol=0)


def test_adapters_without_a_checkpoint_are_refused(run):
    with pytest.raises(ValueError, match="--peft.*--policy.path"):
        run(*FROM_ZERO, *EVERYTHING, "--peft.r=4")


def memory_of_a_step(policy) -> int:
    """Numbers that a training step keeps for its backward pass, which it also runs."""
    sizes = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: sizes.append(x.numel()) or x, lambda x: x):
        loss, _ = policy(tiny_batch(policy.config), noise=torch.ones(2, 5, 32), time=torch.tensor([0.2, 0.7]))
    loss.backward()
    return sum(sizes)


@pytest.mark.parametrize("frozen", [{}, {"freeze_vision_encoder": True, "train_expert_only": True}])
def test_gradient_checkpointing_changes_no_number(frozen):
    policy, again = (tiny_policy(**frozen, gradient_checkpointing=flag).train() for flag in (False, True))
    again.load_state_dict(policy.state_dict())
    assert memory_of_a_step(again) < 0.7 * memory_of_a_step(policy)
    for (name, a), b in zip(policy.named_parameters(), again.parameters(), strict=True):
        assert (a.grad is None) == (b.grad is None) and (a.grad is None or torch.equal(a.grad, b.grad)), name
