"""The presets: every file is complete, and its policy accepts a Koch dataset."""

from pathlib import Path

import pytest

import lerobot.configs
from lerobot.common.policies.factory import set_features
from lerobot.configs.parser import parse
from lerobot.configs.train import TrainPipelineConfig
from lerobot.configs.types import FeatureType, PolicyFeature

PRESETS = sorted(p.stem for p in (Path(lerobot.configs.__file__).parent / "presets").glob("*.json"))
KOCH = {
    "action": PolicyFeature(FeatureType.ACTION, (6,)),
    "observation.state": PolicyFeature(FeatureType.STATE, (6,)),
    "observation.images.laptop": PolicyFeature(FeatureType.VISUAL, (3, 480, 640)),
    "observation.images.phone": PolicyFeature(FeatureType.VISUAL, (3, 480, 640)),
}


@pytest.mark.parametrize("name", PRESETS)
def test_preset_fits_the_arm(name):
    cfg = parse(TrainPipelineConfig, ["--dataset.root=data", f"--preset={name}", "--policy.device=cpu"])
    set_features(cfg.policy, KOCH)
    cfg.policy.validate_features()
    assert name.startswith(f"{cfg.policy.type}_mini")
    schedule = cfg.scheduler or cfg.policy.get_scheduler_preset()
    assert getattr(schedule, "num_decay_steps", cfg.steps) <= cfg.steps
    assert getattr(cfg.policy, "n_vqvae_training_steps", 0) < cfg.steps
