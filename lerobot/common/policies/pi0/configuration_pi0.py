"""Configuration of pi0, and how both generations of its config.json are read."""

from dataclasses import dataclass, field
from typing import Any

from lerobot.common.constants import ACTION, OBS_IMAGES, OBS_STATE
from lerobot.common.optim.optimizers import AdamWConfig
from lerobot.common.optim.schedulers import CosineDecayWithWarmupSchedulerConfig
from lerobot.common.policies.rtc.configuration_rtc import RTCConfig
from lerobot.configs.policies import PreTrainedConfig, extra
from lerobot.configs.types import FeatureType, NormalizationMode, PolicyFeature

VARIANTS = ("gemma_2b", "gemma_300m")
DTYPES = ("float32", "bfloat16")
LETTERBOXES = ("centre", "top_left", "centre_0.3.4")
# What only one generation of config.json has: LeRobot 0.1 to 0.3.3, and later ones.
LEGACY_FIELDS = {"resize_imgs_with_padding", "num_steps", "proj_width", "attention_implementation", "use_cache"}
NEW_FIELDS = {"image_resolution", "paligemma_variant"}
LEGACY_DEFAULTS = {
    "resize_imgs_with_padding": (224, 224),
    "num_steps": 10,
    "proj_width": 1024,
    "use_delta_joint_actions_aloha": False,
    "attention_implementation": "eager",
    "use_cache": True,
}


def _default_normalization() -> dict[str, NormalizationMode]:
    return {
        "VISUAL": NormalizationMode.IDENTITY,
        "STATE": NormalizationMode.MEAN_STD,
        "ACTION": NormalizationMode.MEAN_STD,
    }


@PreTrainedConfig.register_subclass("pi0")
@dataclass
class PI0Config(PreTrainedConfig):
    """pi0 (Black et al. 2024, https://arxiv.org/abs/2410.24164).

    A 3-billion-parameter vision-language model (PaliGemma) reads cameras and task; a 300-million expert beside it,
    which attends its keys and values in every layer, turns noise into a chunk of actions by flow matching. For
    fine-tuning the published weights on a GPU when SmolVLA's 450 million fall short: many tasks, many objects,
    language that matters. At its default size of 3.5 G parameters, weights take 14 GB in float32 (7 GB in bfloat16)
    and training all of them 56 GB with gradients and optimizer; with `train_expert_only` and bfloat16, 10 GB.

    Inputs: at least one picture, `observation.state`, a task. Raises ValueError for values that do not go together.
    """

    paligemma_variant: str = "gemma_2b"  # size of the language model: gemma_2b or gemma_300m
    action_expert_variant: str = "gemma_300m"  # size of the expert; depth and heads are those of the language model
    dtype: str = "float32"  # precision of the weights, float32 or bfloat16 (norms and projections stay float32)

    n_obs_steps: int = 1  # the model reads one observation
    chunk_size: int = 50  # actions predicted per model call
    n_action_steps: int = 50  # how many of them are executed before the next call

    max_state_dim: int = 32  # the state is zero-padded to this width
    max_action_dim: int = 32  # so are the actions; noise and velocity have this width

    num_inference_steps: int = 10  # denoising steps of one chunk
    time_sampling_beta_alpha: float = 1.5  # training times are Beta(alpha, beta) * scale + offset
    time_sampling_beta_beta: float = 1.0
    time_sampling_scale: float = 0.999
    time_sampling_offset: float = 0.001
    min_period: float = 4e-3  # of the sine waves that encode the denoising time
    max_period: float = 4.0

    rtc_config: RTCConfig | None = None  # real-time chunking: how a chunk continues the one before

    image_resolution: tuple[int, int] | None = (224, 224)  # (height, width); empty: pictures have the right size
    empty_cameras: int = 0  # declared inputs of cameras that do not exist

    normalization_mapping: dict[str, NormalizationMode] = field(default_factory=_default_normalization)

    gradient_checkpointing: bool = False  # recompute layers in the backward pass: less memory, a third more time
    compile_model: bool = False  # torch.compile training and sampling
    compile_mode: str = "max-autotune"

    freeze_vision_encoder: bool = False  # keep the vision tower as it is
    train_expert_only: bool = False  # keep all of PaliGemma as it is

    optimizer_lr: float = 2.5e-5
    optimizer_betas: tuple[float, float] = (0.9, 0.95)
    optimizer_eps: float = 1e-8
    optimizer_weight_decay: float = 0.01
    optimizer_grad_clip_norm: float = 1.0

    scheduler_warmup_steps: int = 1_000
    scheduler_decay_steps: int = 30_000
    scheduler_decay_lr: float = 2.5e-6

    tokenizer_max_length: int = 48  # longest task, in tokens

    train_state_proj: bool = extra(True)  # train the projection of the state

    # Hub id, local folder, or the small tokenizer that ships with the code (`pi0_mini`)
    tokenizer_name: str = extra("google/paligemma-3b-pt-224")
    # Sizes that differ from the variants', in `vision_config`, `text_config` and `expert_config`
    vlm_config: dict = extra({})
    # (noise, time) draws per sample and step; pictures, which cost more than the expert, are encoded once
    draws_per_sample: int = extra(1)
    training_tasks: list[str] = extra([])  # sentences seen in training, filled from the dataset; others warn
    # Where the bars of pictures of another shape lie: centre; top_left, as up to LeRobot 0.3.3; centre_0.3.4, whose
    # bars are -3 where black is -1
    letterbox: str = extra("centre")
    # Round tokens to bfloat16, and sum denoising times in float32, exactly where LeRobot up to 0.3.3 does
    legacy_rounding: bool = extra(False)
    adapt_to_pi_aloha: bool = extra(False)  # joint signs and gripper units of pi0's Aloha data

    counts = (
        *("chunk_size", "n_action_steps", "max_state_dim", "max_action_dim", "num_inference_steps"),
        *("tokenizer_max_length", "draws_per_sample"),
    )

    def __post_init__(self):
        super().__post_init__()
        if self.n_action_steps > self.chunk_size:
            raise ValueError(
                f"n_action_steps={self.n_action_steps} is more than chunk_size={self.chunk_size}: set it to at most "
                "the number of predicted actions."
            )
        self._check_choice("paligemma_variant", VARIANTS)
        self._check_choice("action_expert_variant", VARIANTS)
        self._check_choice("dtype", DTYPES)
        self._check_choice("letterbox", LETTERBOXES)

    def _check_choice(self, name: str, choices: tuple[str, ...]) -> None:
        if getattr(self, name) not in choices:
            raise ValueError(f"{name}='{getattr(self, name)}': expected one of {', '.join(choices)}.")

    @classmethod
    def upgrade(cls, raw: dict[str, Any]) -> dict[str, Any]:
        """Fields of LeRobot 0.1 to 0.3.3 in terms of ours; other configurations are returned as they are.

        Raises NotImplementedError for delta joint actions and ValueError for `n_obs_steps` other than 1.
        """
        if not LEGACY_FIELDS & raw.keys() or NEW_FIELDS & raw.keys():
            return raw
        old = {**LEGACY_DEFAULTS, **{k: v for k, v in raw.items() if k in LEGACY_DEFAULTS}}
        if raw.get("n_action_steps", 50) > raw.get("chunk_size", 50):
            raise ValueError(
                f"n_action_steps={raw.get('n_action_steps', 50)} is more than chunk_size={raw.get('chunk_size', 50)}."
            )
        if raw.get("n_obs_steps", 1) != 1:
            raise ValueError(f"n_obs_steps={raw['n_obs_steps']}: pi0 reads one observation, set n_obs_steps=1.")
        if old["use_delta_joint_actions_aloha"]:
            raise NotImplementedError(
                "use_delta_joint_actions_aloha=true is used for real Aloha models and not available."
            )
        size = old["resize_imgs_with_padding"]
        ours = {
            "num_inference_steps": old["num_steps"],
            "image_resolution": None if size is None else [size[1], size[0]],  # theirs is (width, height)
            "dtype": "bfloat16",
            "letterbox": "top_left",
            "legacy_rounding": True,
            "freeze_vision_encoder": True,
            "optimizer_weight_decay": 1e-10,
            "optimizer_grad_clip_norm": 10.0,
        }
        if old["proj_width"] != 1024:
            ours["vlm_config"] = {"expert_config": {"hidden_size": old["proj_width"]}}
        return {**ours, **{k: v for k, v in raw.items() if k not in LEGACY_DEFAULTS}}

    def validate_features(self) -> None:
        """Declare the inputs of `empty_cameras`, and state and action where nothing declares them."""
        for i in range(self.empty_cameras):
            shape = (3, *(self.image_resolution or (480, 640)))
            self.input_features[f"{OBS_IMAGES}.empty_camera_{i}"] = PolicyFeature(FeatureType.VISUAL, shape)
        self.input_features.setdefault(OBS_STATE, PolicyFeature(FeatureType.STATE, (self.max_state_dim,)))
        self.output_features.setdefault(ACTION, PolicyFeature(FeatureType.ACTION, (self.max_action_dim,)))
        for feature, limit in ((self.robot_state_feature, "max_state_dim"), (self.action_feature, "max_action_dim")):
            if feature.shape[0] > getattr(self, limit):
                raise ValueError(
                    f"A feature of width {feature.shape[0]} does not fit into {limit}={getattr(self, limit)}: "
                    f"raise --policy.{limit}."
                )
        if not self.image_features:
            raise ValueError(f"pi0 needs a picture; input_features are {', '.join(self.input_features)}.")

    def get_optimizer_preset(self) -> AdamWConfig:
        return AdamWConfig(
            lr=self.optimizer_lr,
            betas=self.optimizer_betas,
            eps=self.optimizer_eps,
            weight_decay=self.optimizer_weight_decay,
            grad_clip_norm=self.optimizer_grad_clip_norm,
        )

    def get_scheduler_preset(self) -> CosineDecayWithWarmupSchedulerConfig:
        return CosineDecayWithWarmupSchedulerConfig(
            peak_lr=self.optimizer_lr,
            decay_lr=self.scheduler_decay_lr,
            num_warmup_steps=self.scheduler_warmup_steps,
            num_decay_steps=self.scheduler_decay_steps,
        )

    @property
    def observation_delta_indices(self) -> None:
        return None

    @property
    def action_delta_indices(self) -> list[int]:
        return list(range(self.chunk_size))

    @property
    def reward_delta_indices(self) -> None:
        return None
