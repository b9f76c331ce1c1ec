"""The configuration of a training run."""

import datetime as dt
import logging
import multiprocessing
import os
import secrets
from dataclasses import dataclass, field
from pathlib import Path

import draccus

import lerobot.common.policies  # noqa: F401  registers the choices of --policy.type
from lerobot.common.constants import (
    CHECKPOINTS_DIR,
    LAST_CHECKPOINT_LINK,
    PRETRAINED_MODEL_DIR,
    TRAIN_CONFIG_NAME,
    TRAINING_STATE_DIR,
    TRAINING_STEP,
)
from lerobot.common.envs.configs import EnvConfig
from lerobot.common.optim.optimizers import OptimizerConfig
from lerobot.common.optim.schedulers import LRSchedulerConfig
from lerobot.common.utils.io_utils import read_json, write_json
from lerobot.configs.default import (
    DatasetConfig,
    EvalConfig,
    FeaturesConfig,
    PeftConfig,
    TrackioConfig,
    WandBConfig,
)
from lerobot.configs.policies import PreTrainedConfig


@dataclass
class TrainPipelineConfig:
    """Train a policy on a LeRobotDataset."""

    dataset: DatasetConfig
    policy: PreTrainedConfig | None = None  # which policy
    env: EnvConfig | None = None  # evaluate in this environment every eval_freq steps
    preset: str | None = None  # settings of lerobot/configs/presets/<name>.json below the other flags
    output_dir: Path | None = None  # empty: outputs/train/<date>/<time>_<job_name>
    job_name: str | None = None  # how the run is called; empty: environment and policy
    resume: bool = False  # continue the run of --config_path or --output_dir
    seed: int | None = 1000  # of sample order, first weights and draws; null: drawn and recorded
    cudnn_deterministic: bool = False  # on a GPU: repeatable convolutions, slower
    num_workers: int = 4  # processes that load data; 0: load in the training process
    prefetch_factor: int = 2  # batches that each worker prepares ahead
    persistent_workers: bool = True  # keep workers between epochs
    dataloader_multiprocessing_context: str = "spawn"  # or fork, forkserver
    batch_size: int = 8  # frames per process and micro-batch
    gradient_accumulation_steps: int = 1  # micro-batches per optimizer step
    steps: int = 100_000  # optimizer steps
    ema_decay: float = 0.0  # average the weights with this decay (0.999); checkpoints then deploy the average; 0: off
    eval_freq: int = 20_000  # steps between evaluations in env; 0: never
    eval_steps: int = 0  # steps between validations on the held-out episodes (--dataset.eval_split); 0: only the end
    max_eval_samples: int = 0  # frames of the held-out episodes that a validation looks at; 0: all
    log_freq: int = 200  # steps between log lines; 0: never
    save_checkpoint: bool = True  # false: train without writing weights
    save_freq: int = 20_000  # steps between checkpoints; 0: only the last
    save_total_limit: int = 0  # keep this many newest checkpoints, and the best; 0: all
    save_best: str | None = None  # keep the best checkpoint by this: eval/loss, eval/action_error, eval/pc_success
    tolerance_s: float = 1e-4  # how far a video frame may be from its timestamp, in seconds
    rename_map: dict[str, str] = field(default_factory=dict)  # dataset camera key -> key of the checkpoint
    use_policy_training_preset: bool = True  # optimizer and scheduler as the policy says
    optimizer: OptimizerConfig | None = None
    scheduler: LRSchedulerConfig | None = None
    peft: PeftConfig | None = None  # train adapters instead of the policy's own weights
    eval: EvalConfig = field(default_factory=EvalConfig)
    features: FeaturesConfig = field(default_factory=FeaturesConfig)
    wandb: WandBConfig = field(default_factory=WandBConfig)
    resume_finished: bool = False  # with --resume: go on after the end of the learning-rate schedule
    trackio: TrackioConfig = field(default_factory=TrackioConfig)
    tensorboard: bool = False  # write <output_dir>/tensorboard (extra: tensorboard)
    progress: bool = True  # a progress bar, in a terminal
    estimate: bool = False  # only measure: speed, memory, largest batch, time to finish, disk
    smoke: bool = False  # 20 steps, save, resume, predict: does everything work?

    def __post_init__(self):
        self.checkpoint_path: Path | None = None
        self.typed_flags: dict[str, str] = {}

    def validate(self) -> None:
        """Check and complete the configuration; raises ValueError, FileNotFoundError or FileExistsError."""
        if self.resume:
            self._find_checkpoint()
        if self.policy is None:
            raise ValueError("No policy given: set --policy.type=smolvla (from zero) or --policy.path=CHECKPOINT.")
        self.job_name = self.job_name or (f"{self.env.type}_{self.policy.type}" if self.env else self.policy.type)
        self._set_output_dir()
        self._check_numbers()
        self._choose_seed()
        self._set_optimizer()
        if self.resume:
            self._compare_with_checkpoint()
        else:
            self.policy.warn_of_short_training(self.steps)
        if self.policy.push_to_hub and not self.policy.repo_id:
            raise ValueError("--policy.push_to_hub=true needs --policy.repo_id=OWNER/NAME.")
        if self.policy.push_to_hub and not self.save_checkpoint:
            raise ValueError("--policy.push_to_hub=true uploads the last checkpoint: it needs --save_checkpoint=true.")

    def _find_checkpoint(self) -> None:
        from lerobot.common.training.manifest import require_whole

        if "policy.path" in self.typed_flags:
            raise ValueError(
                f"--policy.path={self.typed_flags['policy.path']} starts a new run, --resume=true continues one with "
                "the policy of its own checkpoint: leave one of the two out."
            )
        typed = self.typed_flags.get("config_path")
        config_file = Path(typed) if typed else newest_train_config(self.output_dir)
        folder = config_file if config_file.is_dir() else config_file.parent
        if not (folder / TRAIN_CONFIG_NAME).is_file():
            folder = folder / PRETRAINED_MODEL_DIR
        if not (folder / TRAIN_CONFIG_NAME).is_file():
            raise FileNotFoundError(
                f"--resume=true: no {TRAIN_CONFIG_NAME} at '{config_file}'. Give --output_dir=RUN or "
                f"--config_path=RUN/{CHECKPOINTS_DIR}/{LAST_CHECKPOINT_LINK}/{PRETRAINED_MODEL_DIR}/{TRAIN_CONFIG_NAME}."
            )
        self.checkpoint_path = folder.resolve().parent
        require_whole(self.checkpoint_path)
        self.policy.pretrained_path = str(folder.resolve())
        self._follow_a_moved_run()

    def _follow_a_moved_run(self) -> None:
        """Write to the run that the checkpoint stands in, wherever it was when it started."""
        run = self.checkpoint_path.parent.parent
        if self.checkpoint_path.parent.name != CHECKPOINTS_DIR:
            return
        typed = self.typed_flags.get("output_dir")
        if typed and Path(typed).resolve() != run and (Path(typed) / CHECKPOINTS_DIR).exists():
            raise FileExistsError(
                f"--output_dir={typed} holds another run than --config_path, which belongs to {run}. Leave one of the "
                "two flags out, or choose a new --output_dir."
            )
        if not typed and (self.output_dir is None or Path(self.output_dir).resolve() != run):
            self.output_dir = run

    def _set_output_dir(self) -> None:
        if self.output_dir is None:
            now = dt.datetime.now()
            self.output_dir = Path("outputs/train") / f"{now:%Y-%m-%d}" / f"{now:%H-%M-%S}_{self.job_name}"
        self.output_dir = Path(self.output_dir)
        # Another process of the same run may have made the folder already.
        if not self.resume and self.output_dir.exists() and os.environ.get("RANK", "0") == "0":
            raise FileExistsError(
                f"--output_dir={self.output_dir} exists already. Choose another folder, or add --resume=true to "
                "continue it."
            )
        above = next(p for p in (self.output_dir, *self.output_dir.absolute().parents) if p.exists())
        if not (above.is_dir() and os.access(above, os.W_OK | os.X_OK)):
            raise PermissionError(
                f"--output_dir={self.output_dir}: '{above}' cannot be written. Choose another folder."
            )

    def _check_numbers(self) -> None:
        for name, least in (
            ("steps", 1),
            ("batch_size", 1),
            ("gradient_accumulation_steps", 1),
            ("num_workers", 0),
            ("save_freq", 0),
            ("save_total_limit", 0),
            ("log_freq", 0),
            ("eval_freq", 0),
            ("eval_steps", 0),
            ("max_eval_samples", 0),
        ):
            if getattr(self, name) < least:
                raise ValueError(f"--{name}={getattr(self, name)}: expected at least {least}.")
        if not 0.0 <= self.ema_decay < 1.0:
            raise ValueError(f"--ema_decay={self.ema_decay}: expected a number in [0, 1), for example 0.999.")
        if self.dataloader_multiprocessing_context not in multiprocessing.get_all_start_methods():
            raise ValueError(
                f"--dataloader_multiprocessing_context={self.dataloader_multiprocessing_context}: expected one of "
                f"{', '.join(multiprocessing.get_all_start_methods())}."
            )
        self._check_validation()
        if self.rename_map and not self.policy.pretrained_path:
            raise ValueError("--rename_map maps names to those of a checkpoint: it needs --policy.path.")
        if self.dataset.frame_store and self.policy.image_size is None:
            raise ValueError("--dataset.frame_store=true needs --policy.image_size=[height,width].")
        if self.dataset.frame_store and self.dataset.image_transforms.enable:
            logging.info("Augmentation acts on the stored, resized frames.")

    def _check_validation(self) -> None:
        if self.eval_steps and not self.dataset.eval_split:
            raise ValueError(
                f"--eval_steps={self.eval_steps} validates on held-out episodes: it needs --dataset.eval_split=0.1."
            )
        if not self.save_best:
            return
        in_env = self.save_best in ("eval/pc_success", "eval/avg_sum_reward", "eval/avg_max_reward")
        name, every = ("eval_freq", self.eval_freq if self.env else 0) if in_env else ("eval_steps", self.eval_steps)
        if not (in_env or self.save_best.startswith(("eval/loss", "eval/action_error"))):
            raise ValueError(f"--save_best={self.save_best}: expected eval/loss, eval/action_error or eval/pc_success.")
        if not (every and self.save_freq and every % self.save_freq == 0):
            raise ValueError(
                f"--save_best={self.save_best} compares checkpoints: --{name} (now {every}) must be a multiple of "
                f"--save_freq (now {self.save_freq}){' and --env.type must be set' if in_env else ''}."
            )

    def _choose_seed(self) -> None:
        """Without a seed one is drawn and recorded: also such a run resumes exactly and can be repeated."""
        if self.seed is None:
            if int(os.environ.get("WORLD_SIZE", "1")) > 1:
                raise ValueError("--seed=null: several processes need a common seed; set --seed=NUMBER.")
            self.seed = secrets.randbits(31)
            logging.info("Seed: %d (drawn)", self.seed)
        if self.seed < 0:
            raise ValueError(f"--seed={self.seed}: expected at least 0.")

    def _set_optimizer(self) -> None:
        if not self.use_policy_training_preset:
            if self.optimizer is None or self.scheduler is None:
                raise ValueError("--use_policy_training_preset=false needs --optimizer.type and --scheduler.type.")
            return
        typed = [f for f in self.typed_flags if f.startswith(("optimizer.", "scheduler."))]
        if typed and not self.resume:
            raise ValueError(
                f"--{typed[0]} has no effect: the policy's preset sets optimizer and scheduler. Use the "
                "--policy.optimizer_* / --policy.scheduler_* flags, or add --use_policy_training_preset=false."
            )
        changed = any(f.startswith(("policy.optimizer_", "policy.scheduler_")) for f in self.typed_flags)
        if changed or not self.resume:
            self.optimizer = self.policy.get_optimizer_preset()
            self.scheduler = self.policy.get_scheduler_preset()

    def _compare_with_checkpoint(self) -> None:
        """ValueError where this would not be the run that the checkpoint belongs to."""
        saved = read_json(Path(self.policy.pretrained_path) / TRAIN_CONFIG_NAME)
        done = read_json(self.checkpoint_path / TRAINING_STATE_DIR / TRAINING_STEP)["step"]
        anew = f"or start a new run from its weights: --policy.path={self.policy.pretrained_path}."
        if "seed" in self.typed_flags and saved.get("seed") not in (None, self.seed):
            raise ValueError(
                f"--seed={self.seed}: the run began with seed {saved['seed']}, which decides the order of its frames. "
                f"Leave --seed out, {anew}"
            )
        if self.steps < done:
            raise ValueError(
                f"--steps={self.steps}: the checkpoint has {done} steps already. Give more, resume an earlier one by "
                f"--config_path, {anew}"
            )
        if self.steps != saved["steps"] and self.scheduler is not None:
            self._schedule_changes(saved["steps"], done)

    def _schedule_changes(self, planned: int, done: int) -> None:
        now, before = (self.optimizer.lr * self.scheduler.multiplier(n)(done) for n in (self.steps, planned))
        if done >= planned and not self.resume_finished:
            raise ValueError(
                f"The run is finished: {done} of {planned} steps, its learning-rate schedule is at its end. With "
                f"--steps={self.steps} it would go on at a rate of {now:.2g}; if that is wanted, add "
                "--resume_finished=true. Else start a new run from its weights: "
                f"--policy.path={self.policy.pretrained_path}."
            )
        if abs(now - before) > 1e-3 * abs(before):
            logging.warning(
                "--steps=%d instead of %d stretches the schedule: the learning rate goes on at %.3g, not at %.3g.",
                self.steps, planned, now, before,
            )  # fmt: skip

    @classmethod
    def resume_config_path(cls, given: dict[str, str]) -> str | None:
        """The config file to load when only `--resume=true --output_dir=RUN` was typed."""
        if given.get("resume", "false").lower() != "true" or "config_path" in given or "output_dir" not in given:
            return None
        return str(newest_train_config(Path(given["output_dir"])))

    def to_dict(self) -> dict:
        """JSON-ready form."""
        return draccus.encode(self)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write train_config.json."""
        write_json(self.to_dict(), Path(folder) / TRAIN_CONFIG_NAME)

    @classmethod
    def from_pretrained(cls, path: str | Path, cli_args: list[str] | None = None, **hub) -> "TrainPipelineConfig":
        """Read a train_config.json (file, checkpoint folder or hub id), with `--field=value` arguments on top."""
        from lerobot.common.utils.hub import find_file
        from lerobot.configs import parser

        file = path if Path(path).exists() else find_file(path, TRAIN_CONFIG_NAME, **hub)
        return parser.parse(cls, [f"--config_path={file}", *(cli_args or [])])


@dataclass
class TrainRLServerPipelineConfig(TrainPipelineConfig):
    """The configuration of LeRobot's learner and actor (HIL-SERL), so that files with it are read.

    `dataset` may be left out: such a run learns from what the robot does. `train.py`, which learns from a dataset,
    needs one.
    """

    dataset: DatasetConfig | None = None

    def validate(self) -> None:
        """As every training; raises ValueError without a dataset."""
        if self.dataset is None:
            raise ValueError(
                "Training here learns from a dataset: set --dataset.root=FOLDER or --dataset.repo_id=NAME."
            )
        super().validate()


def newest_train_config(output_dir: str | Path | None) -> Path:
    """Where the newest whole checkpoint of a run keeps its configuration; damaged ones are passed over with a warning.

    Raises ValueError where every checkpoint is damaged; without any, the path where the newest would be.
    """
    from lerobot.common.training.manifest import newest_whole_checkpoint

    if output_dir is None:
        raise ValueError("--resume=true needs --output_dir=RUN or --config_path=RUN/checkpoints/last/...")
    newest, damaged = newest_whole_checkpoint(Path(output_dir))
    for folder, faults in damaged.items():
        logging.warning("%s is damaged (%s) and is passed over.", folder, "; ".join(faults))
    if newest is None and damaged:
        raise ValueError(f"Every checkpoint of {output_dir} is damaged; start a new run with another --output_dir.")
    folder = newest or Path(output_dir) / CHECKPOINTS_DIR / LAST_CHECKPOINT_LINK
    return folder / PRETRAINED_MODEL_DIR / TRAIN_CONFIG_NAME
