"""A tiny dataset and a tiny policy, real ones."""

import numpy as np
import pytest

from lerobot.common.datasets.lerobot_dataset import LeRobotDataset
from lerobot.common.policies import ACTConfig
from lerobot.configs.default import DatasetConfig
from lerobot.configs.train import TrainPipelineConfig

JOINTS = [f"joint_{i}" for i in range(6)]


@pytest.fixture(scope="session")
def dataset_root(tmp_path_factory):
    """Three episodes of 12 frames with one camera."""
    return record_dataset(tmp_path_factory.mktemp("data") / "tiny")


def record_dataset(root, episodes=3):
    """Write that dataset."""
    vector = {"dtype": "float32", "shape": (6,), "names": JOINTS}
    picture = {"dtype": "video", "shape": (48, 64, 3), "names": ["height", "width", "channels"]}
    features = {"observation.state": vector, "action": vector, "observation.images.laptop": picture}
    dataset = LeRobotDataset.create("tiny", 30, root=root, features=features, robot_type="koch")
    rng = np.random.default_rng(0)
    for episode in range(episodes):
        for step in range(12):
            dataset.add_frame(
                {
                    "observation.state": rng.normal(size=6).astype(np.float32),
                    "action": rng.normal(size=6).astype(np.float32),
                    "observation.images.laptop": np.full((48, 64, 3), 20 * episode + step, np.uint8),
                    "task": "Pick up the red cube.",
                }
            )
        dataset.save_episode()
    return root


@pytest.fixture
def make_config(dataset_root, tmp_path):
    """A training configuration over that dataset; keyword arguments replace fields."""

    def make(**changes):
        policy = ACTConfig(
            chunk_size=5,
            n_action_steps=5,
            dim_model=16,
            n_heads=2,
            dim_feedforward=16,
            n_encoder_layers=1,
            n_vae_encoder_layers=1,
            backbone_width=4,
            backbone_norm="group",
            pretrained_backbone_weights=None,
            device="cpu",
        )
        settings = {
            "dataset": DatasetConfig(root=str(dataset_root)),
            "policy": policy,
            "output_dir": tmp_path / "run",
            "steps": 4,
            "batch_size": 4,
            "num_workers": 0,
            "log_freq": 1,
            "save_freq": 2,
        }
        return TrainPipelineConfig(**{**settings, **changes})

    return make
