"""Configuration groups that several commands share."""

import math
from dataclasses import InitVar, dataclass, field

from lerobot.common.datasets.transforms import ImageTransformsConfig
from lerobot.common.player.blending import FADE


@dataclass
class DatasetConfig:
    """Which dataset, and how it is read."""

    repo_id: str | None = None  # hub id, or any name when root is given
    root: str | None = None  # folder of the dataset; empty: HF_LEROBOT_HOME/<repo_id>
    episodes: list[int] | None = None  # train on these episodes only
    image_transforms: ImageTransformsConfig = field(default_factory=ImageTransformsConfig)
    revision: str | None = None  # branch, tag or commit on the hub
    use_imagenet_stats: bool = True  # camera mean and std of ImageNet instead of the dataset's
    video_backend: str = "pyav"  # pyav, or torchcodec where it is installed; the frames are the same
    # decode every video once, resized to --policy.image_size, into a memory-mapped store (needs image_size)
    frame_store: bool = False
    # for datasets without `next.reward`, where every episode ends in success: it is 1 in the last frames, this many
    reward_at_end: int = 0
    eval_split: float = 0.0  # fraction of the episodes (the last ones) held out of training
    # Of newer LeRobot releases: taken where they ask for nothing, not kept.
    streaming: InitVar[bool] = False
    return_uint8: InitVar[bool] = False
    depth_output_unit: InitVar[str] = "mm"
    repo_type: InitVar[str] = "dataset"

    def __post_init__(self, streaming, return_uint8, depth_output_unit, repo_type):
        if streaming:
            raise ValueError(
                "dataset.streaming=true: training reads frames in an order that can be resumed exactly, so the dataset "
                "must be on the disk. Leave it at false; for a loop of your own there is "
                "lerobot.common.datasets.streaming_dataset.StreamingLeRobotDataset."
            )
        if (return_uint8, depth_output_unit, repo_type) != (False, "mm", "dataset"):
            raise ValueError(
                f"dataset: return_uint8={return_uint8}, depth_output_unit='{depth_output_unit}', {repo_type=}: "
                "only false, 'mm' and 'dataset' can be had here (loaders pass bytes by themselves)."
            )
        if self.repo_id is None and self.root is None:
            raise ValueError("No dataset given: set --dataset.root=FOLDER or --dataset.repo_id=NAME.")
        if not 0.0 <= self.eval_split < 1.0:
            raise ValueError(f"--dataset.eval_split={self.eval_split}: expected a fraction in [0, 1).")
        if self.reward_at_end < 0:
            raise ValueError(f"--dataset.reward_at_end={self.reward_at_end}: expected a number of frames, 0 for none.")
        if self.video_backend not in ("pyav", "torchcodec", "video_reader"):
            raise ValueError(f"--dataset.video_backend={self.video_backend}: expected pyav or torchcodec.")
        if self.episodes is not None and (
            len(set(self.episodes)) < len(self.episodes) or min(self.episodes, default=0) < 0
        ):
            raise ValueError(f"--dataset.episodes={self.episodes}: expected distinct numbers >= 0.")


@dataclass
class FeaturesConfig:
    """Where and how --policy.frozen_features are kept."""

    dir: str | None = None  # folder of the stores; empty: HF_LEROBOT_HOME/features
    max_gb: float | None = None  # auto never takes more; empty: nine tenths of the free disk
    batch_size: int = 16  # frames computed together while a store is filled
    device_gb: float | None = None  # largest store kept on the GPU (0: none); empty: two fifths of its free memory


@dataclass
class WandBConfig:
    """Weights & Biases."""

    enable: bool = False  # log to Weights & Biases (extra: wandb)
    disable_artifact: bool = False  # do not upload checkpoints
    project: str = "lerobot"
    entity: str | None = None
    notes: str | None = None
    run_id: str | None = None
    mode: str | None = None  # online, offline or disabled


@dataclass
class TrackioConfig:
    """Trackio, a local dashboard."""

    enable: bool = False  # log to Trackio (extra: trackio)
    project: str = "lerobot"
    space_id: str | None = None  # also show it in this Hugging Face Space


@dataclass
class PeftConfig:
    """Adapters on a trained policy (extra: peft)."""

    target_modules: str | None = None  # regular expression or JSON list of layers; empty: what the policy suggests
    full_training_modules: list[str] | None = None  # layers that are trained and stored whole
    method_type: str = "LORA"  # any method of peft
    init_type: str | None = None  # how fresh adapters start (LORA, MISS), for example gaussian or pissa
    r: int = 16  # rank
    lora_alpha: int | None = None  # strength; empty: peft's default
    merge: bool = False  # at the end also write <output_dir>/merged_model, an ordinary checkpoint


@dataclass
class JobConfig:
    """Where a training runs (LeRobot 0.6): here. Raises ValueError for another machine."""

    target: str | None = None
    image: str | None = None
    timeout: str = "2d"
    detach: bool = False
    tags: list[str] = field(default_factory=list)

    def __post_init__(self):
        if self.target not in (None, "local"):
            raise ValueError(f"--job.target={self.target}: remote jobs are not started from here; run train.py there.")


@dataclass
class EvalConfig:
    """Evaluation in an environment."""

    n_episodes: int = 50  # episodes to run
    batch_size: int = 0  # environments side by side; 0: chosen from the number of cores
    use_async_envs: bool = False  # environments (or whole episodes, on a CPU) in processes of their own
    # how chunks are played: sync (plan, then move), async (plan while moving), rtc (async, and continue the old chunk)
    player: str = "sync"
    latency_ms: float = 0.0  # simulated time that a chunk takes
    fade: int = FADE  # actions over which a chunk of --eval.player=async takes over from the one before; 0: at once

    @property
    def plays(self) -> bool:
        """Whether a chunk player is needed: without latency, sync is what a policy does by itself."""
        return self.player != "sync" or self.latency_ms > 0

    def __post_init__(self):
        if not 0 <= self.latency_ms < math.inf:
            raise ValueError(f"--eval.latency_ms={self.latency_ms}: expected 0 or more.")
        if self.player not in ("sync", "async", "rtc"):
            raise ValueError(f"--eval.player={self.player}: expected sync, async or rtc.")
        if self.fade < 0:
            raise ValueError(f"--eval.fade={self.fade}: expected 0 or more.")
        if self.n_episodes < 1:
            raise ValueError(f"--eval.n_episodes={self.n_episodes}: expected at least 1.")
        if self.batch_size < 0:
            raise ValueError(f"--eval.batch_size={self.batch_size}: expected 0 (chosen from the cores) or more.")
        self.batch_size = min(self.batch_size, self.n_episodes)
