"""The configuration of an evaluation in an environment."""

import datetime as dt
from dataclasses import dataclass, field
from pathlib import Path

import lerobot.common.policies  # noqa: F401  registers the choices of --policy.type
from lerobot.common.envs.configs import EnvConfig
from lerobot.configs.default import EvalConfig
from lerobot.configs.policies import PreTrainedConfig

DEFAULT_SEED = 1000
KOCH_SEED = 10_000  # episodes of the twin from here on are never recorded: they are for evaluation


@dataclass
class EvalPipelineConfig:
    """Evaluate a policy in an environment."""

    env: EnvConfig  # which environment
    policy: PreTrainedConfig | None = None  # which policy; --policy.path=CHECKPOINT
    eval: EvalConfig = field(default_factory=EvalConfig)
    output_dir: Path | None = None  # empty: outputs/eval/<date>/<time>_<job_name>; may exist
    job_name: str | None = None
    # seed of the first episode, the next ones count on; null: random. Not given with --env.type=koch: 10000
    seed: int | None = DEFAULT_SEED
    n_videos: int = 10  # film the first episodes, and up to half as many successes and failures each
    rename_map: dict[str, str] = field(default_factory=dict)  # key of the environment -> key of the checkpoint

    def __post_init__(self):
        self.typed_flags: dict[str, str] = {}
        for name, value in (("seed", self.seed), ("n_videos", self.n_videos)):
            if value is not None and value < 0:
                raise ValueError(f"--{name}={value}: expected 0 or more.")
        if self.job_name is None:
            self.job_name = f"{self.env.type}_{self.policy.type}" if self.policy else self.env.type
        if self.output_dir is None:
            now = dt.datetime.now()
            self.output_dir = Path("outputs/eval") / f"{now:%Y-%m-%d}" / f"{now:%H-%M-%S}_{self.job_name}"
        self.output_dir = Path(self.output_dir)

    @property
    def first_seed(self) -> int | None:
        """The seed of the first episode: `seed`, or the first held-out one of the twin if no seed was
        chosen.
        """
        chosen = "seed" in self.typed_flags or self.seed != DEFAULT_SEED
        return KOCH_SEED if self.env.type == "koch" and not chosen else self.seed
