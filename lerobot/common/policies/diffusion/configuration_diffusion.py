"""Configuration of Diffusion Policy."""

from dataclasses import dataclass, field

from lerobot.common.constants import ACTION, OBS_ENV_STATE, OBS_STATE
from lerobot.common.optim.optimizers import AdamConfig
from lerobot.common.optim.schedulers import DiffuserSchedulerConfig
from lerobot.common.policies.common.noise_scheduler import PREDICTION_TYPES, SAMPLERS
from lerobot.common.policies.common.resnet import MAX_LAYERS
from lerobot.common.policies.common.vision_options import check_backbone, check_pictures
from lerobot.configs.policies import PreTrainedConfig, extra
from lerobot.configs.types import FeatureType, NormalizationMode

FINAL_GROUPS = 8  # of the U-Net's last norm, whatever n_groups says: checkpoints were trained so


@PreTrainedConfig.register_subclass("diffusion")
@dataclass
class DiffusionConfig(PreTrainedConfig):
    """Diffusion Policy (Chi et al. 2023, https://arxiv.org/abs/2303.04137).

    A 1-D U-Net turns noise into a sequence of actions in many small steps, conditioned on the last two
    observations (ResNet keypoints of each camera, joint positions). Choose it when demonstrations solve the task in
    several different ways, which it keeps apart where ACT would average; it needs more training and its
    predictions cost many passes (`noise_scheduler_type=DDIM` with `num_inference_steps=10` for a real arm). At its
    default size of 263 M parameters with one camera, training takes 4.2 GB for weights, gradients and optimizer and
    0.13 GB of activations for each picture of 480x640 (two per camera and sample).

    Inputs: `observation.state`, and pictures of one size or `observation.environment_state`. Raises ValueError for
    values that do not go together.
    """

    # Time: observations at 1-n_obs_steps..0; the horizon starts at the first of them
    n_obs_steps: int = 2
    horizon: int = 16  # actions denoised at once; divisible by 2 ** len(down_dims)
    n_action_steps: int = 8  # of which this many are executed; at most horizon - n_obs_steps + 1

    normalization_mapping: dict[str, NormalizationMode] = field(
        default_factory=lambda: {
            "VISUAL": NormalizationMode.MEAN_STD,
            "STATE": NormalizationMode.MIN_MAX,
            "ACTION": NormalizationMode.MIN_MAX,
        }
    )
    drop_n_last_frames: int = 7  # final frames of an episode that no sample starts at: mostly padding

    # Vision
    vision_backbone: str = "resnet18"  # resnet18, 34, 50, 101 or 152
    resize_shape: tuple[int, int] | None = None  # (height, width) to resize to inside the network, before the crop
    crop_ratio: float = 1.0  # with resize_shape: part of each side that the crop keeps
    crop_shape: tuple[int, int] | None = None  # (height, width), smaller than the picture; null: no crop
    crop_is_random: bool = True  # in training; otherwise the centre
    # a published name, a .pth or .safetensors file, or null for random weights; needs use_group_norm=false
    pretrained_backbone_weights: str | None = None
    use_group_norm: bool = True  # group norm in place of batch norm
    spatial_softmax_num_keypoints: int = 32
    use_separate_rgb_encoder_per_camera: bool = False

    # U-Net
    down_dims: tuple[int, ...] = (512, 1024, 2048)  # width of each stage; each later one halves the time axis
    kernel_size: int = 5  # odd
    n_groups: int = 8  # of its group norms; divides every width
    diffusion_step_embed_dim: int = 128
    use_film_scale_modulation: bool = True  # the condition scales and shifts, else it only shifts

    # Noise
    noise_scheduler_type: str = "DDPM"  # or DDIM, which needs fewer steps
    num_train_timesteps: int = 100
    beta_schedule: str = "squaredcos_cap_v2"  # linear, scaled_linear, sigmoid (DDPM only)
    beta_start: float = 1e-4
    beta_end: float = 0.02
    prediction_type: str = "epsilon"  # the network predicts the noise, or the clean sample
    clip_sample: bool = True
    clip_sample_range: float = 1.0
    num_inference_steps: int | None = None  # null: num_train_timesteps

    compile_model: bool = False  # torch.compile the U-Net
    compile_mode: str = "reduce-overhead"

    # Loss: with loss_over_padding=true, whether padded steps count as zero rather than in full
    do_mask_loss_for_padding: bool = False

    optimizer_lr: float = 1e-4
    optimizer_betas: tuple[float, float] = (0.95, 0.999)
    optimizer_eps: float = 1e-8
    optimizer_weight_decay: float = 1e-6
    scheduler_name: str = "cosine"
    scheduler_warmup_steps: int = 500

    # (noise, timestep) draws per sample and step; pictures, which cost more than a small U-Net, are encoded once
    draws_per_sample: int = extra(1)

    # A backbone that a CPU can train
    backbone_width: int = extra(64)  # planes of layer1, doubled in each next layer; 64 is the published net
    backbone_layers: int = extra(MAX_LAYERS)  # layers kept: after 2 the map has 1/8 of the picture's size, 3: 1/16

    counts = (
        *("horizon", "n_action_steps", "spatial_softmax_num_keypoints", "kernel_size", "n_groups", "backbone_width"),
        *("num_train_timesteps", "num_inference_steps", "draws_per_sample"),
    )

    def __post_init__(self):
        super().__post_init__()
        check_backbone(self)
        self._check_choices()
        self._check_times()
        self._crop_after_resize()

    def _check_choices(self) -> None:
        for name, known in (("prediction_type", PREDICTION_TYPES), ("noise_scheduler_type", SAMPLERS)):
            if getattr(self, name) not in known:
                raise ValueError(f"{name}='{getattr(self, name)}': expected one of {', '.join(known)}.")
        if self.kernel_size % 2 == 0:
            raise ValueError(f"kernel_size={self.kernel_size}: expected an odd number, which keeps the horizon.")
        if self.diffusion_step_embed_dim % 2 or self.diffusion_step_embed_dim < 4:
            raise ValueError(
                f"diffusion_step_embed_dim={self.diffusion_step_embed_dim}: expected an even number from 4."
            )
        if bad := [width for width in self.down_dims if width % self.n_groups]:
            raise ValueError(f"down_dims={tuple(self.down_dims)}: {bad} are not divisible by n_groups={self.n_groups}.")
        if self.down_dims[0] % FINAL_GROUPS:
            raise ValueError(f"down_dims={tuple(self.down_dims)}: the first is not divisible by {FINAL_GROUPS}.")

    def _check_times(self) -> None:
        factor = 2 ** len(self.down_dims)
        if self.horizon % factor:
            raise ValueError(
                f"horizon={self.horizon}: expected a multiple of 2 ** len(down_dims) = {factor}, since each stage "
                f"halves it; the nearest is {max(1, round(self.horizon / factor)) * factor}."
            )
        most = self.horizon - self.n_obs_steps + 1
        if not 1 <= self.n_action_steps <= most:
            raise ValueError(
                f"n_action_steps={self.n_action_steps}: expected 1 to {most}, which is what horizon={self.horizon} "
                f"leaves from the present frame on with n_obs_steps={self.n_obs_steps}."
            )

    def _crop_after_resize(self) -> None:
        """With `resize_shape` the crop is the part `crop_ratio` of it."""
        if not 0 < self.crop_ratio <= 1:
            raise ValueError(f"crop_ratio={self.crop_ratio}: expected more than 0 and at most 1.")
        if self.resize_shape is None:
            return
        if len(self.resize_shape) != 2 or min(self.resize_shape) < 1:
            raise ValueError(f"resize_shape={tuple(self.resize_shape)}: expected (height, width).")
        kept = tuple(int(side * self.crop_ratio) for side in self.resize_shape)
        self.crop_shape = kept if self.crop_ratio < 1 else None

    def validate_features(self) -> None:
        """Raise ValueError unless there are a state, a picture or environment state, and an action to predict."""
        if self.robot_state_feature is None:
            raise ValueError(f"Diffusion needs '{OBS_STATE}'; input_features are {list(self.input_features)}.")
        if not self.image_features and self.env_state_feature is None:
            raise ValueError(
                f"Diffusion needs a picture or '{OBS_ENV_STATE}' beside the state; input_features are "
                f"{list(self.input_features)}. Record with a camera, or use a dataset that has one."
            )
        for key, feature in self.input_features.items():
            if feature.type is FeatureType.ENV and key != OBS_ENV_STATE:
                raise ValueError(f"'{key}' is of type ENV; Diffusion reads environment state from '{OBS_ENV_STATE}'.")
        if self.action_feature is None:
            raise ValueError(f"Diffusion predicts '{ACTION}'; output_features are {list(self.output_features)}.")
        check_pictures(self)

    def get_optimizer_preset(self) -> AdamConfig:
        """Adam."""
        return AdamConfig(
            lr=self.optimizer_lr,
            betas=self.optimizer_betas,
            eps=self.optimizer_eps,
            weight_decay=self.optimizer_weight_decay,
        )

    def get_scheduler_preset(self) -> DiffuserSchedulerConfig:
        """Warm-up, then a cosine to zero."""
        return DiffuserSchedulerConfig(name=self.scheduler_name, num_warmup_steps=self.scheduler_warmup_steps)

    @property
    def observation_delta_indices(self) -> list[int]:
        return list(range(1 - self.n_obs_steps, 1))

    @property
    def action_delta_indices(self) -> list[int]:
        return list(range(1 - self.n_obs_steps, 1 - self.n_obs_steps + self.horizon))

    @property
    def reward_delta_indices(self) -> None:
        return None
