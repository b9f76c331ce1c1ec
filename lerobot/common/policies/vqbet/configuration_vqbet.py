"""Configuration of VQ-BeT."""

import logging
from dataclasses import dataclass, field

from lerobot.common.constants import ACTION, OBS_STATE
from lerobot.common.optim.optimizers import AdamConfig
from lerobot.common.optim.schedulers import VQBeTSchedulerConfig
from lerobot.common.policies.common.resnet import MAX_LAYERS
from lerobot.common.policies.common.vision_options import check_backbone, check_pictures
from lerobot.configs.policies import PreTrainedConfig, extra
from lerobot.configs.types import NormalizationMode


@PreTrainedConfig.register_subclass("vqbet")
@dataclass
class VQBeTConfig(PreTrainedConfig):
    """VQ-BeT, behaviour generation with latent actions (Lee et al. 2024, https://arxiv.org/abs/2403.03181).

    First a small autoencoder learns a vocabulary of action chunks (residual vector quantization, the first
    `n_vqvae_training_steps` steps); then a transformer over the last observations chooses a word and corrects it.
    Choose it, like Diffusion, when demonstrations differ, and one pass per chunk must do; one camera only, and
    actions are sampled, so episodes differ. At its default size of 38 M parameters, training takes 0.6 GB for
    weights, gradients and optimizer and 0.13 GB of activations for each 8 samples of five pictures cropped to 84x84.

    Inputs: `observation.state` and exactly one picture. Raises ValueError for values that do not go together.
    """

    # Time: observations at 1-n_obs_steps..0, actions from the first of them on
    n_obs_steps: int = 5
    n_action_pred_token: int = 3  # action tokens: the present one and future ones
    action_chunk_size: int = 5  # actions per token; the present token's are executed

    normalization_mapping: dict[str, NormalizationMode] = field(
        default_factory=lambda: {
            "VISUAL": NormalizationMode.IDENTITY,
            "STATE": NormalizationMode.MIN_MAX,
            "ACTION": NormalizationMode.MIN_MAX,
        }
    )

    # Vision
    vision_backbone: str = "resnet18"  # resnet18, 34, 50, 101 or 152
    crop_shape: tuple[int, int] | None = (84, 84)  # (height, width); null: no crop
    crop_is_random: bool = True  # in training; otherwise the centre
    # a published name, a .pth or .safetensors file, or null for random weights; needs use_group_norm=false
    pretrained_backbone_weights: str | None = None
    use_group_norm: bool = True  # group norm in place of batch norm
    spatial_softmax_num_keypoints: int = 32

    # Vocabulary of action chunks: two layers of codes
    n_vqvae_training_steps: int = 20000  # length of the first phase; must be less than --steps
    vqvae_n_embed: int = 16  # codes per layer
    vqvae_embedding_dim: int = 256
    vqvae_enc_hidden_dim: int = 128

    # Transformer
    gpt_block_size: int = 500  # longest sequence of tokens
    gpt_input_dim: int = 512
    gpt_output_dim: int = 512
    gpt_n_layer: int = 8
    gpt_n_head: int = 8
    gpt_hidden_dim: int = 512  # divisible by gpt_n_head
    dropout: float = 0.1

    # Second phase
    offset_loss_weight: float = 10000.0
    primary_code_loss_weight: float = 5.0
    secondary_code_loss_weight: float = 0.5
    bet_softmax_temperature: float = 0.1  # of sampling codes
    sequentially_select: bool = False  # the second code is chosen knowing the first

    optimizer_lr: float = 1e-4
    optimizer_betas: tuple[float, float] = (0.95, 0.999)
    optimizer_eps: float = 1e-8
    optimizer_weight_decay: float = 1e-6
    optimizer_vqvae_lr: float = 1e-3
    optimizer_vqvae_weight_decay: float = 1e-4
    scheduler_warmup_steps: int = 500

    # A backbone that a CPU can train
    backbone_width: int = extra(64)  # planes of layer1, doubled in each next layer; 64 is the published net
    backbone_layers: int = extra(MAX_LAYERS)  # layers kept: after 2 the map has 1/8 of the picture's size, 3: 1/16

    # codes that nothing was assigned to take the place of a random sample; LeRobot 0.4.4 lets them run away
    reseed_dead_codes: bool = extra(False)
    n_vqvae_steps_done: int = extra(0)  # of the first phase, written with every checkpoint

    counts = (
        *("n_action_pred_token", "action_chunk_size", "spatial_softmax_num_keypoints", "n_vqvae_training_steps"),
        *("vqvae_n_embed", "vqvae_embedding_dim", "vqvae_enc_hidden_dim", "backbone_width"),
        *("gpt_block_size", "gpt_input_dim", "gpt_output_dim", "gpt_n_layer", "gpt_n_head", "gpt_hidden_dim"),
    )

    def __post_init__(self):
        super().__post_init__()
        check_backbone(self)
        if self.gpt_hidden_dim % self.gpt_n_head:
            raise ValueError(
                f"gpt_hidden_dim={self.gpt_hidden_dim}: expected a multiple of gpt_n_head={self.gpt_n_head}."
            )

    @property
    def n_tokens(self) -> int:
        """Tokens of the transformer: picture, state and action token per observation, then future action tokens."""
        return self.n_obs_steps * (len(self.image_features) + 2) + self.n_action_pred_token - 1

    @property
    def n_chunks(self) -> int:
        """Action chunks that one sample trains: one per action token."""
        return self.n_obs_steps + self.n_action_pred_token - 1

    def validate_features(self) -> None:
        """Raise ValueError unless there are a state, exactly one picture, and an action to predict."""
        if self.robot_state_feature is None:
            raise ValueError(f"VQ-BeT needs '{OBS_STATE}'; input_features are {list(self.input_features)}.")
        if len(self.image_features) != 1:
            raise ValueError(
                f"VQ-BeT takes exactly one camera, found {len(self.image_features)} ({list(self.image_features)}). "
                "Choose one with --policy.cameras=[NAME], or another policy (act, diffusion, smolvla)."
            )
        if self.action_feature is None:
            raise ValueError(f"VQ-BeT predicts '{ACTION}'; output_features are {list(self.output_features)}.")
        if self.n_tokens > self.gpt_block_size:
            raise ValueError(
                f"gpt_block_size={self.gpt_block_size}: n_obs_steps={self.n_obs_steps} and n_action_pred_token="
                f"{self.n_action_pred_token} make {self.n_tokens} tokens; raise it to at least that."
            )
        check_pictures(self)

    def warn_of_short_training(self, steps: int) -> None:
        """Warn if the run ends before the second phase, without which the policy cannot act."""
        first = self.n_vqvae_training_steps - self.n_vqvae_steps_done
        if steps <= first:
            logging.warning(
                "--steps=%d end within VQ-BeT's first phase (%d steps), which learns the vocabulary of action chunks: "
                "such a checkpoint cannot act. Set --steps above that, or lower --policy.n_vqvae_training_steps.",
                steps,
                first,
            )

    def get_optimizer_preset(self) -> AdamConfig:
        """Adam; the autoencoder has a rate of its own (see `VQBeTPolicy.get_optim_params`)."""
        return AdamConfig(
            lr=self.optimizer_lr,
            betas=self.optimizer_betas,
            eps=self.optimizer_eps,
            weight_decay=self.optimizer_weight_decay,
        )

    def get_scheduler_preset(self) -> VQBeTSchedulerConfig:
        """Constant in the first phase, then warm-up and a cosine."""
        return VQBeTSchedulerConfig(
            num_warmup_steps=self.scheduler_warmup_steps, num_vqvae_training_steps=self.n_vqvae_training_steps
        )

    @property
    def observation_delta_indices(self) -> list[int]:
        return list(range(1 - self.n_obs_steps, 1))

    @property
    def action_delta_indices(self) -> list[int]:
        return list(range(1 - self.n_obs_steps, self.n_action_pred_token + self.action_chunk_size - 1))

    @property
    def reward_delta_indices(self) -> None:
        return None
