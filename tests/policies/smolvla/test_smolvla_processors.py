"""SmolVLA's processors: golden numbers, the shipped tokenizer, legacy checkpoints."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lerobot.common.policies.factory import make_pre_post_processors
from lerobot.common.policies.smolvla.modeling_smolvla import SmolVLAPolicy
from lerobot.common.policies.smolvla.processor_smolvla import make_smolvla_pre_post_processors

from .conftest import ARTIFACTS, tiny_config

STEPS = [
    "rename_observations_processor",
    "to_batch_processor",
    "smolvla_new_line_processor",
    "tokenizer_processor",
    "device_processor",
    "normalizer_processor",
]


def statistics(width: int = 6) -> dict:
    one = {"mean": torch.zeros(width), "std": torch.ones(width)}
    return {"observation.state": one, "action": one}


@pytest.mark.parametrize("stored", [True, False])
def test_golden_batch_and_actions(case, stored):
    stats: dict = {}
    for name, value in case.prefixed("stats.").items():
        feature, statistic = name.rsplit(".", 1)
        stats.setdefault(feature, {})[statistic] = value
    config = case.policy.config
    if stored:
        pre, post = make_pre_post_processors(config, "checkpoint")
    else:
        pre, post = make_smolvla_pre_post_processors(config, stats)
    batch = pre({**case.prefixed("raw."), "task": list(case.meta["tasks"])})
    assert batch["task"] == case.meta["task_after_preprocessor"]
    for name, expected in case.batch().items():
        if name != "task" and not name.endswith("_padding_mask"):
            torch.testing.assert_close(batch[name], expected, atol=1e-6, rtol=0)
    actions = case.tensors["infer.actions"]
    torch.testing.assert_close(post(actions), case.tensors["infer.chunk_postprocessed"], atol=1e-4, rtol=0)


def test_a_checkpoint_with_statistics_inside_gives_its_raw_actions(monkeypatch):
    monkeypatch.chdir(ARTIFACTS / "smolvla033_koch")
    tensors, meta = load_file("tensors.safetensors"), json.loads(Path("meta.json").read_text())
    policy = SmolVLAPolicy.from_pretrained("checkpoint")
    pre, post = make_pre_post_processors(policy.config, "checkpoint")
    prefix, noise = "infer.raw.", tensors["infer.noise"]
    observations = {k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)}
    scale = tensors["infer.actions"].abs().max()
    for i, expected in enumerate(tensors["infer.actions"]):
        policy.reset()
        batch = pre({**{k: v[i] for k, v in observations.items()}, "task": [meta["task"]] * len(noise)})
        action = post(policy.select_action(batch, noise=noise))
        torch.testing.assert_close(action / scale, expected / scale, atol=1e-5, rtol=0)


def test_steps_and_their_order():
    pre, post = make_smolvla_pre_post_processors(tiny_config(), statistics())
    assert [s._registry_name for s in pre.steps] == STEPS
    assert [s._registry_name for s in post.steps] == ["unnormalizer_processor", "device_processor"]
    assert pre.steps[3].get_config() == {
        "max_length": 48,
        "task_key": "task",
        "padding_side": "right",
        "padding": "longest",
        "truncation": True,
        "tokenizer_name": "smolvla_mini",
    }
    pre, _ = make_smolvla_pre_post_processors(tiny_config(image_size=(24, 40)), statistics())
    assert "image_crop_resize_processor" in [s._registry_name for s in pre.steps]
    batch = pre({"observation.images.top": torch.rand(1, 3, 48, 40), "task": ["go"]})
    assert batch["observation.images.top"].shape == (1, 3, 24, 40)


def test_the_shipped_tokenizer_reads_any_sentence_and_keeps_its_end():
    config = tiny_config(tokenizer_max_length=12)
    pre, _ = make_smolvla_pre_post_processors(config, statistics())
    tokenizer = pre.steps[3].input_tokenizer
    tasks = [
        "Put the red cube in the tray.",
        "Öffne 3 Schubladen, bitte — und stelle die Tasse ganz vorsichtig hinein!",
    ]
    batch = pre({"observation.state": torch.zeros(2, 6), "task": tasks})
    tokens, mask = batch["observation.language.tokens"], batch["observation.language.attention_mask"]
    assert tokens.shape == mask.shape == (2, 12) and mask.dtype == torch.bool and tokens.max() < 576
    assert tokenizer.decode(tokens[0][mask[0]]) == tasks[0] + "\n"
    assert mask[1].all() and tasks[1].endswith(tokenizer.decode(tokens[1]).strip())  # the beginning is cut
    assert (tokens[0][~mask[0]] == tokenizer.pad_token_id).all()


def test_a_saved_pair_loads_with_the_checkpoints_own_tokenizer(tmp_path, monkeypatch):
    folder = tmp_path / "vlm"
    shutil.copytree(ARTIFACTS / "smolvla_default" / "vlm", folder)
    config = tiny_config(vlm_model_name=str(folder), vlm_config={}, resize_imgs_with_padding=(64, 64))
    pre, post = make_smolvla_pre_post_processors(config, statistics())
    checkpoint = tmp_path / "checkpoint"
    SmolVLAPolicy(config).save_pretrained(checkpoint)
    pre.save_pretrained(checkpoint)
    post.save_pretrained(checkpoint)
    raw = {"observation.state": torch.rand(2, 6), "task": ["Pick up the pen.", "Close it"]}
    expected = pre(raw)
    shutil.rmtree(folder)
    monkeypatch.chdir(tmp_path)
    loaded, _ = make_pre_post_processors(SmolVLAPolicy.from_pretrained(checkpoint).config, checkpoint)
    assert torch.equal(loaded(raw)["observation.language.tokens"], expected["observation.language.tokens"])
    assert loaded.steps[3].get_config()["tokenizer_name"] == str(folder)


def test_an_absent_tokenizer_names_the_ways_out(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(FileNotFoundError, match="HF_HOME.*--policy.path.*--preset=smolvla_mini"):
        make_smolvla_pre_post_processors(tiny_config(vlm_model_name=str(tmp_path / "none")), statistics())
