"""Training ACT-DINOv2 from the entrypoint: resuming, and features kept on disk."""

import pytest
import torch
from safetensors.torch import load_file

from lerobot.common.policies import ACTDINOv2Config
from lerobot.common.policies.common.dinov2 import DINOv2Config
from lerobot.common.training.metrics import read_lines
from lerobot.configs import parser
from lerobot.configs.train import TrainPipelineConfig
from lerobot.scripts.train import train

NET = DINOv2Config(hidden_size=64, num_hidden_layers=1, num_attention_heads=1, mlp_ratio=1, image_size=28)


@pytest.fixture
def make_dinov2_config(make_config, tmp_path):
    """A tiny ACT-DINOv2 whose random backbone stays as it is."""

    def make(run, **policy):
        sizes = {"chunk_size": 5, "n_action_steps": 5, "dim_model": 16, "n_heads": 2, "dim_feedforward": 16}
        layers = {"n_encoder_layers": 1, "n_vae_encoder_layers": 1}
        net = {"backbone_config": NET, "pretrained_backbone_weights": None, "backbone_image_size": 28}
        cfg = make_config(
            policy=ACTDINOv2Config(device="cpu", **sizes, **layers, **net, **policy), output_dir=tmp_path / run
        )
        cfg.features.dir = str(tmp_path / "features")
        return cfg

    return make


def losses(cfg):
    return [row["loss"] for row in read_lines(cfg.output_dir / "metrics.jsonl") if "loss" in row]


def test_two_steps_and_a_resume_are_the_same_run_as_four(make_dinov2_config, tmp_path):
    train(make_dinov2_config("whole"))
    half = make_dinov2_config("halves")
    half.steps = 2
    train(half)
    train(parser.parse(TrainPipelineConfig, ["--resume=true", f"--output_dir={tmp_path / 'halves'}", "--steps=4"]))
    first, second = (
        load_file(tmp_path / run / "checkpoints" / "000004" / "pretrained_model" / "model.safetensors")
        for run in ("whole", "halves")
    )
    assert all(torch.equal(v, second[k]) for k, v in first.items())
    before = load_file(tmp_path / "halves" / "checkpoints" / "000002" / "pretrained_model" / "model.safetensors")
    assert all(torch.equal(v, second[k]) for k, v in before.items() if k.startswith("model.backbone."))


@pytest.mark.parametrize("feature_mode", ["grid", "grid_cls"])
def test_losses_with_kept_features_are_those_without(make_dinov2_config, feature_mode):
    plain = make_dinov2_config("plain", feature_mode=feature_mode)
    kept = make_dinov2_config("kept", feature_mode=feature_mode, frozen_features="vision")
    for cfg in (plain, kept):
        train(cfg)
    assert len(losses(kept)) == 4 and losses(kept) == pytest.approx(losses(plain), rel=1e-5)
