"""The configuration of a prediction over recorded episodes."""

import datetime as dt
from dataclasses import dataclass, field
from pathlib import Path

import lerobot.common.policies  # noqa: F401  registers the choices of --policy.type
from lerobot.configs.default import DatasetConfig
from lerobot.configs.policies import PreTrainedConfig


@dataclass
class PredictPipelineConfig:
    """Run a checkpoint over a recorded episode and compare its actions with the recorded ones."""

    dataset: DatasetConfig
    policy: PreTrainedConfig | None = None  # which checkpoint; --policy.path=CHECKPOINT
    episode: int = 0  # which episode
    every: int | None = None  # frames between predictions; empty: the policy's n_action_steps, as on the arm
    batch_size: int = 8  # frames predicted together
    seed: int = 0  # of the noise of policies that draw some
    output_dir: Path | None = None  # empty: outputs/predict/<date>/<time>_<policy>_episode_<episode>; may exist
    rename_map: dict[str, str] = field(default_factory=dict)  # dataset camera key -> key of the checkpoint
    tolerance_s: float = 1e-4  # how far a video frame may be from its timestamp, in seconds

    def __post_init__(self):
        for name in ("every", "batch_size"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise ValueError(f"--{name}={value}: expected at least 1.")
        if self.output_dir is None:
            now = dt.datetime.now()
            name = f"{now:%H-%M-%S}_{self.policy.type if self.policy else 'policy'}_episode_{self.episode}"
            self.output_dir = Path("outputs/predict") / f"{now:%Y-%m-%d}" / name
        self.output_dir = Path(self.output_dir)
