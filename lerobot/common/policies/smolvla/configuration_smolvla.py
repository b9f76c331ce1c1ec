"""Configuration of SmolVLA."""

from dataclasses import dataclass, field

from lerobot.common.constants import OBS_IMAGES
from lerobot.common.optim.optimizers import AdamWConfig
from lerobot.common.optim.schedulers import CosineDecayWithWarmupSchedulerConfig
from lerobot.common.policies.rtc.configuration_rtc import RTCConfig, check_max_delay
from lerobot.configs.policies import PreTrainedConfig, extra
from lerobot.configs.types import FeatureType, NormalizationMode, PolicyFeature


def _default_normalization() -> dict[str, NormalizationMode]:
    return {
        "VISUAL": NormalizationMode.IDENTITY,
        "STATE": NormalizationMode.MEAN_STD,
        "ACTION": NormalizationMode.MEAN_STD,
    }


@PreTrainedConfig.register_subclass("smolvla")
@dataclass
class SmolVLAConfig(PreTrainedConfig):
    """SmolVLA (Shukor et al. 2025, https://arxiv.org/abs/2506.01844).

    A small vision-language model reads cameras, task and state; an expert beside it, which attends its keys and
    values, turns noise into a chunk of actions by flow matching. Choose it where the task is given as a sentence, or to
    build on weights that saw many arms (`lerobot/smolvla_base`); for one task from few demonstrations ACT is smaller
    and faster. At its default size of 450 M parameters, of which 100 M are trained, training takes 1.5 GB for weights,
    gradients and optimizer; a step of two samples peaks at 2.3 GB.

    Raises ValueError for `n_action_steps` above `chunk_size` and numbers out of range, NotImplementedError for
    delta joint actions.
    """

    n_obs_steps: int = 1  # the model reads one observation
    chunk_size: int = 50  # actions predicted per model call
    n_action_steps: int = 50  # how many of them are executed before the next call

    normalization_mapping: dict[str, NormalizationMode] = field(default_factory=_default_normalization)

    max_state_dim: int = 32  # the state is zero-padded to this width
    max_action_dim: int = 32  # so are the actions; noise and velocity have this width
    resize_imgs_with_padding: tuple[int, int] | None = (512, 512)  # (width, height); empty: no resize
    empty_cameras: int = 0  # how many absent cameras may be filled with black, masked pictures

    adapt_to_pi_aloha: bool = False  # joint signs and gripper units of pi0's Aloha data
    use_delta_joint_actions_aloha: bool = False  # not available

    tokenizer_max_length: int = 48  # longest task, in tokens
    num_steps: int = 10  # denoising steps of one chunk
    use_cache: bool = True  # keys and values of the prefix are always computed once per chunk

    freeze_vision_encoder: bool = True  # keep the vision tower as it is
    train_expert_only: bool = True  # keep the whole vision-language model as it is
    train_state_proj: bool = True  # train the projection of the state

    optimizer_lr: float = 1e-4
    optimizer_betas: tuple[float, float] = (0.9, 0.95)
    optimizer_eps: float = 1e-8
    optimizer_weight_decay: float = 1e-10
    optimizer_grad_clip_norm: float = 10

    scheduler_warmup_steps: int = 1_000
    scheduler_decay_steps: int = 30_000
    scheduler_decay_lr: float = 2.5e-6

    # Hub id, local folder, or a size that ships with the code (`smolvla_mini`): configuration and tokenizer.
    vlm_model_name: str = "HuggingFaceTB/SmolVLM2-500M-Video-Instruct"
    load_vlm_weights: bool = False  # start from the pretrained vision-language model, in bfloat16

    add_image_special_tokens: bool = False  # put marker tokens around every picture
    attention_mode: str = "cross_attn"  # containing "cross": the expert reads the prefix in cross layers
    prefix_length: int = -1  # kept for compatibility: padding the prefix changes no number, so none is built
    pad_language_to: str = "longest"  # or "max_length"
    num_expert_layers: int = -1  # 0 or less: as many as the vision-language model
    num_vlm_layers: int = 16  # text layers kept; 0 or less: all
    self_attn_every_n_layers: int = 2  # every n-th layer is a joint self-attention layer; 0 or less: none
    expert_width_multiplier: float = 0.75  # width of the expert, relative to the text model

    min_period: float = 4e-3  # of the sine waves that encode the denoising time
    max_period: float = 4.0

    rtc_config: RTCConfig | None = None  # real-time chunking: how a chunk continues the one before
    compile_model: bool = False  # torch.compile training and sampling
    compile_mode: str = "max-autotune"

    vlm_config: dict = extra({})  # overrides of the vision-language model's configuration, nested as there
    # (noise, time) draws per sample and step; pictures, which cost more than the expert, are encoded once.
    draws_per_sample: int = extra(1)
    # share of the training draws at time 1: no trace of the actions is in the noise, so only the observation tells them
    pure_noise_share: float = extra(0.0)
    # actions at the start of a chunk that training gives, at most (0: none), so that a chunk can continue another
    rtc_training_max_delay: int = extra(0)
    training_tasks: list[str] = extra([])  # sentences seen in training, filled from the dataset; others warn
    gradient_checkpointing: bool = extra(False)  # recompute layers in the backward pass: less memory, a third more time
    optimizer_lr_vision: float | None = extra(None)  # learning rate of the vision tower; empty: optimizer_lr

    counts = (
        *("chunk_size", "n_action_steps", "max_state_dim", "max_action_dim", "num_steps", "tokenizer_max_length"),
        *("draws_per_sample",),
    )

    def __post_init__(self):
        super().__post_init__()
        if self.n_action_steps > self.chunk_size:
            raise ValueError(
                "The chunk size is the upper bound of action steps per model call: "
                f"--policy.n_action_steps={self.n_action_steps}, --policy.chunk_size={self.chunk_size}."
            )
        self._check_numbers()
        check_max_delay(self.rtc_training_max_delay, self.chunk_size)
        if self.use_delta_joint_actions_aloha:
            raise NotImplementedError(
                "--policy.use_delta_joint_actions_aloha=true is used for real Aloha models and not available."
            )

    def _check_numbers(self) -> None:
        if self.empty_cameras < 0:
            raise ValueError(f"--policy.empty_cameras={self.empty_cameras}: expected at least 0.")
        if not 0 < self.min_period < self.max_period:
            raise ValueError(
                f"--policy.min_period={self.min_period}, --policy.max_period={self.max_period}: expected "
                "0 < min_period < max_period."
            )
        if not 0 <= self.pure_noise_share <= 1:
            raise ValueError(f"--policy.pure_noise_share={self.pure_noise_share}: expected a share from 0 to 1.")
        if self.expert_width_multiplier <= 0:
            raise ValueError(f"--policy.expert_width_multiplier={self.expert_width_multiplier}: expected above 0.")
        if self.pad_language_to not in ("longest", "max_length"):
            raise ValueError(f"--policy.pad_language_to={self.pad_language_to}: expected longest or max_length.")

    def validate_features(self) -> None:
        """Declare the inputs of `empty_cameras`."""
        for i in range(self.empty_cameras):
            name = f"{OBS_IMAGES}.empty_camera_{i}"
            self.input_features[name] = PolicyFeature(type=FeatureType.VISUAL, shape=(3, 480, 640))

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
    def observation_delta_indices(self) -> list[int]:
        return [0]

    @property
    def action_delta_indices(self) -> list[int]:
        return list(range(self.chunk_size))

    @property
    def reward_delta_indices(self) -> None:
        return None
