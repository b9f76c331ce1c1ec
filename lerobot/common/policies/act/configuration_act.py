"""Configuration of ACT."""

from dataclasses import dataclass, field

from lerobot.common.constants import ACTION, OBS_ENV_STATE
from lerobot.common.optim.optimizers import AdamWConfig
from lerobot.common.policies.common.resnet import MAX_LAYERS, NORMS
from lerobot.common.policies.rtc.configuration_rtc import check_max_delay
from lerobot.configs.policies import PreTrainedConfig, extra
from lerobot.configs.types import FeatureType, NormalizationMode


@PreTrainedConfig.register_subclass("act")
@dataclass
class ACTConfig(PreTrainedConfig):
    """Action Chunking with Transformers (Zhao et al. 2023, https://arxiv.org/abs/2304.13705).

    Pictures (a ResNet map per camera) and joint positions go through a transformer that predicts a chunk of
    future actions at once, trained by L1 with a variational latent for the style of the demonstration. The
    first choice for one task with tens of demonstrations: deterministic, fast, few knobs. At its default size
    of 52 M parameters, training takes 0.8 GB for weights, gradients and optimizer, and 0.25 GB of activations
    for each picture of 480x640 in a batch.

    Inputs: at least one picture or `observation.environment_state`; `observation.state` if there is one.
    Raises ValueError or NotImplementedError for values that do not go together.
    """

    # Chunks
    n_obs_steps: int = 1  # observation frames; ACT takes one
    chunk_size: int = 100  # actions predicted at once
    n_action_steps: int = 100  # of which this many are executed before the next prediction

    normalization_mapping: dict[str, NormalizationMode] = field(
        default_factory=lambda: {
            "VISUAL": NormalizationMode.MEAN_STD,
            "STATE": NormalizationMode.MEAN_STD,
            "ACTION": NormalizationMode.MEAN_STD,
        }
    )

    # Vision backbone
    vision_backbone: str = "resnet18"  # resnet18, 34, 50, 101 or 152
    # a published name, a .pth or .safetensors file, or null for random weights
    pretrained_backbone_weights: str | None = "ResNet18_Weights.IMAGENET1K_V1"
    replace_final_stride_with_dilation: bool | int = False  # layer4 keeps the resolution (resnet50 and larger)

    # Transformer
    pre_norm: bool = False  # normalize before attention and feed-forward rather than after
    dim_model: int = 512  # width; divisible by n_heads and by 4
    n_heads: int = 8
    dim_feedforward: int = 3200
    feedforward_activation: str = "relu"  # relu or gelu
    n_encoder_layers: int = 4
    n_decoder_layers: int = 1  # the original code has 7 and uses the output of the first

    # Variational latent
    use_vae: bool = True
    latent_dim: int = 32
    n_vae_encoder_layers: int = 4

    # overlapping predictions are averaged with weights exp(-coeff * i), oldest first; 0.01 in the paper
    temporal_ensemble_coeff: float | None = None

    # Training
    dropout: float = 0.1
    kl_weight: float = 10.0
    optimizer_lr: float = 1e-5
    optimizer_weight_decay: float = 1e-4
    optimizer_lr_backbone: float = 1e-5

    # actions at the start of a chunk that training gives, at most (0: none), so that a chunk can continue another
    rtc_training_max_delay: int = extra(0)

    # A backbone that a CPU can train from random weights
    backbone_width: int = extra(64)  # planes of layer1, doubled in each next layer; 64 is the published net
    backbone_layers: int = extra(MAX_LAYERS)  # layers kept: after 2 the map has 1/8 of the picture's size, 3: 1/16
    backbone_norm: str = extra("frozen")  # frozen (batch norm with fixed statistics), batch or group

    counts = (
        *("chunk_size", "n_action_steps", "dim_model", "n_heads", "dim_feedforward", "latent_dim", "backbone_width"),
        *("n_encoder_layers", "n_decoder_layers", "n_vae_encoder_layers"),
    )

    def __post_init__(self):
        super().__post_init__()
        self._check_vision_backbone()
        self.check_steps()
        check_max_delay(self.rtc_training_max_delay, self.chunk_size)
        if self.n_obs_steps != 1:
            raise ValueError(f"n_obs_steps={self.n_obs_steps}: ACT takes one observation, set n_obs_steps=1.")
        if self.dim_model % self.n_heads or self.dim_model % 4:
            raise ValueError(
                f"dim_model={self.dim_model}: expected a multiple of n_heads={self.n_heads} and, for the 2-D "
                "positions, of 4."
            )
        self._check_backbone()

    def _check_vision_backbone(self) -> None:
        if not self.vision_backbone.startswith("resnet"):
            raise ValueError(f"vision_backbone='{self.vision_backbone}': expected a ResNet, for example resnet18.")

    def check_steps(self) -> None:
        """Raise if n_action_steps does not fit chunk_size or temporal ensembling."""
        if self.temporal_ensemble_coeff is not None and self.n_action_steps > 1:
            raise NotImplementedError(
                f"temporal_ensemble_coeff={self.temporal_ensemble_coeff} with n_action_steps="
                f"{self.n_action_steps}: ensembling predicts at every step, set n_action_steps=1."
            )
        if self.n_action_steps > self.chunk_size:
            raise ValueError(
                f"n_action_steps={self.n_action_steps} is more than chunk_size={self.chunk_size}: set it "
                "to at most the number of predicted actions."
            )

    def _check_backbone(self) -> None:
        if self.backbone_norm not in NORMS:
            raise ValueError(f"backbone_norm='{self.backbone_norm}': expected one of {', '.join(NORMS)}.")
        if not 1 <= self.backbone_layers <= MAX_LAYERS:
            raise ValueError(f"backbone_layers={self.backbone_layers}: expected 1 to {MAX_LAYERS}.")
        if self.replace_final_stride_with_dilation and self.backbone_layers < MAX_LAYERS:
            raise ValueError(
                "replace_final_stride_with_dilation=true dilates layer4, which backbone_layers="
                f"{self.backbone_layers} leaves out: set backbone_layers={MAX_LAYERS}."
            )
        published = self.backbone_width == 64 and self.backbone_norm != "group"
        if self.pretrained_backbone_weights and not published:
            raise ValueError(
                f"pretrained_backbone_weights='{self.pretrained_backbone_weights}' does not fit "
                f"backbone_width={self.backbone_width} with backbone_norm='{self.backbone_norm}': set "
                "--policy.pretrained_backbone_weights=null."
            )

    def validate_features(self) -> None:
        """Raise ValueError unless there is a picture or environment state, and an action to predict."""
        if not self.image_features and self.env_state_feature is None:
            raise ValueError(
                f"ACT needs a picture or '{OBS_ENV_STATE}'; input_features are {list(self.input_features)}."
            )
        for key, feature in self.image_features.items():
            if len(feature.shape) != 3 or feature.shape[0] != 3:
                raise ValueError(f"'{key}' has shape {tuple(feature.shape)}; ACT takes pictures (3, height, width).")
        for key, feature in self.input_features.items():
            if feature.type is FeatureType.ENV and key != OBS_ENV_STATE:
                raise ValueError(f"'{key}' is of type ENV; ACT reads environment state from '{OBS_ENV_STATE}'.")
        if self.action_feature is None:
            raise ValueError(f"ACT predicts '{ACTION}'; output_features are {list(self.output_features)}.")

    def get_optimizer_preset(self) -> AdamWConfig:
        """AdamW with the same weight decay for both parameter groups."""
        return AdamWConfig(lr=self.optimizer_lr, weight_decay=self.optimizer_weight_decay)

    def get_scheduler_preset(self) -> None:
        """Constant learning rate."""
        return None

    @property
    def observation_delta_indices(self) -> None:
        return None

    @property
    def action_delta_indices(self) -> list[int]:
        return list(range(self.chunk_size))

    @property
    def reward_delta_indices(self) -> None:
        return None
