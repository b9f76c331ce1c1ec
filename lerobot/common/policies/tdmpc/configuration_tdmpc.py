"""Configuration of TD-MPC."""

from dataclasses import dataclass, field

from lerobot.common.constants import ACTION, OBS_ENV_STATE, OBS_STATE
from lerobot.common.optim.optimizers import AdamConfig
from lerobot.configs.policies import PreTrainedConfig, extra
from lerobot.configs.types import FeatureType, NormalizationMode

IMAGE_KERNELS = (7, 5, 3, 3)  # convolutions of stride 2 without padding


@PreTrainedConfig.register_subclass("tdmpc")
@dataclass
class TDMPCConfig(PreTrainedConfig):
    """TD-MPC in its offline form FOWM (Feng et al. 2023, https://arxiv.org/abs/2310.16029).

    A small latent world model (encoder, dynamics, reward, an ensemble of Q functions, V, a policy network) is learned
    from recorded transitions with rewards; at run time the cross-entropy method searches the next few actions in it.
    Choose it where the recording has a reward and is not all success, since it learns from failures too, and for short
    horizons; it sees one square picture. At its default size (2.7 M parameters and a copy of them as slow target)
    training takes 55 MB for weights, gradients and optimizer, and 1.2 MB of activations per sample with one picture
    of 84x84.

    Inputs: one square picture, `observation.state`, `observation.environment_state`, any of them; training also reads
    `next.reward`. Raises ValueError for values that do not go together.
    """

    n_obs_steps: int = 1  # observation frames; TD-MPC takes one
    n_action_repeats: int = 2  # how often the first planned action is executed
    horizon: int = 5  # steps planned, and steps of a training sample
    n_action_steps: int = 1  # executed steps of the plan; more than one needs n_action_repeats=1

    normalization_mapping: dict[str, NormalizationMode] = field(
        default_factory=lambda: {
            "VISUAL": NormalizationMode.IDENTITY,
            "STATE": NormalizationMode.IDENTITY,
            "ENV": NormalizationMode.IDENTITY,
            "ACTION": NormalizationMode.MIN_MAX,  # the planner and the policy network act in [-1, 1]
        }
    )

    # World model
    image_encoder_hidden_dim: int = 32  # channels of the picture encoder
    state_encoder_hidden_dim: int = 256
    latent_dim: int = 50
    q_ensemble_size: int = 5
    mlp_dim: int = 512
    discount: float = 0.9  # of the reward, per step

    # Planning
    use_mpc: bool = True  # false: the policy network acts alone
    cem_iterations: int = 6
    max_std: float = 2.0  # of sampled actions
    min_std: float = 0.05
    n_gaussian_samples: int = 512  # candidates around the running mean
    n_pi_samples: int = 51  # candidates of the policy network
    uncertainty_regularizer_coeff: float = 1.0  # weight of the ensemble's disagreement
    n_elites: int = 50
    elite_weighting_temperature: float = 0.5
    gaussian_mean_momentum: float = 0.1

    # Training
    max_random_shift_ratio: float = 0.0476  # pictures are shifted by up to this share of their size
    reward_coeff: float = 0.5
    expectile_weight: float = 0.9  # V leans to the upper end of what Q says
    value_coeff: float = 0.1
    consistency_coeff: float = 20.0
    advantage_scaling: float = 3.0
    pi_coeff: float = 0.5
    temporal_decay_coeff: float = 0.5  # weight of each later step of the horizon
    target_model_momentum: float = 0.995
    optimizer_lr: float = 3e-4

    # Imitation, which TD-MPC does not have: for recordings in which every episode succeeds
    # weight of |policy network - recorded actions|, whose gradient reaches the encoder too
    bc_coeff: float = extra(0.0)
    n_pi_steps: int = extra(1)  # actions that the policy network gives at once; planning looks at the first

    counts = (
        *("n_gaussian_samples", "n_action_repeats", "horizon", "n_action_steps", "n_pi_steps", "cem_iterations"),
        *("image_encoder_hidden_dim", "state_encoder_hidden_dim", "latent_dim", "q_ensemble_size", "mlp_dim"),
    )

    def __post_init__(self):
        super().__post_init__()
        action = self.normalization_mapping.get("ACTION")
        if action is not NormalizationMode.MIN_MAX:
            raise ValueError(
                f"normalization_mapping has ACTION={getattr(action, 'value', action)}: TD-MPC acts in [-1, 1] and "
                "needs MIN_MAX."
            )
        if self.n_obs_steps != 1:
            raise ValueError(f"n_obs_steps={self.n_obs_steps}: TD-MPC takes one observation, set n_obs_steps=1.")
        if self.n_action_steps > 1:
            self._check_action_steps()
        self._check_imitation()
        candidates = self.n_gaussian_samples + self.n_pi_samples
        if self.use_mpc and not 1 <= self.n_elites <= candidates:
            raise ValueError(
                f"n_elites={self.n_elites}: expected 1 to {candidates}, the candidates of n_gaussian_samples and "
                "n_pi_samples."
            )

    def _check_action_steps(self) -> None:
        steps = f"n_action_steps={self.n_action_steps}"
        if self.n_action_repeats != 1:
            raise ValueError(
                f"{steps} with n_action_repeats={self.n_action_repeats}: several steps of a plan are executed once "
                "each, set n_action_repeats=1."
            )
        if not self.use_mpc and self.n_action_steps > self.n_pi_steps:
            raise ValueError(
                f"{steps} with use_mpc=false: the policy network gives n_pi_steps={self.n_pi_steps} at once, set "
                f"n_action_steps={self.n_pi_steps}."
            )
        if self.use_mpc and self.n_action_steps > self.horizon:
            raise ValueError(f"{steps} is more than horizon={self.horizon}: at most the planned actions are executed.")

    def _check_imitation(self) -> None:
        if self.bc_coeff < 0:
            raise ValueError(f"bc_coeff={self.bc_coeff}: expected 0 or more.")
        if self.n_pi_steps > 1 and self.bc_coeff == 0:
            raise ValueError(
                f"n_pi_steps={self.n_pi_steps} with bc_coeff=0: only imitation teaches the actions after the first, "
                "set bc_coeff, for example 10."
            )

    def validate_features(self) -> None:
        """Raise ValueError unless there is something to see, at most one square picture, and an action."""
        self._check_pictures()
        for key, feature in self.input_features.items():
            if feature.type is FeatureType.ENV and key != OBS_ENV_STATE:
                raise ValueError(f"'{key}' is of type ENV; TD-MPC reads environment state from '{OBS_ENV_STATE}'.")
        if not (self.image_features or self.robot_state_feature or self.env_state_feature):
            raise ValueError(
                f"TD-MPC needs a picture, '{OBS_STATE}' or '{OBS_ENV_STATE}'; input_features are "
                f"{list(self.input_features)}."
            )
        if self.action_feature is None:
            raise ValueError(f"TD-MPC predicts '{ACTION}'; output_features are {list(self.output_features)}.")

    def _check_pictures(self) -> None:
        if len(self.image_features) > 1:
            raise ValueError(
                f"TD-MPC takes at most one camera, not {', '.join(self.image_features)}: choose with "
                "--policy.cameras=[NAME]."
            )
        for key, (_, height, width) in self.image_shapes.items():
            if height != width:
                raise ValueError(
                    f"'{key}' is {height}x{width}; TD-MPC takes square pictures: set --policy.image_size=[84,84]."
                )
            if image_map_size(height) < 1:
                raise ValueError(f"'{key}' is {height}x{width}, too small for the encoder: expected at least 39x39.")

    def get_optimizer_preset(self) -> AdamConfig:
        """Adam without weight decay."""
        return AdamConfig(lr=self.optimizer_lr)

    def get_scheduler_preset(self) -> None:
        """Constant learning rate."""
        return None

    @property
    def observation_delta_indices(self) -> list[int]:
        return list(range(self.horizon + 1))

    @property
    def action_delta_indices(self) -> list[int]:
        return list(range(max(self.horizon, self.n_pi_steps)))

    @property
    def reward_delta_indices(self) -> list[int]:
        return list(range(self.horizon))


def image_map_size(side: int) -> int:
    """Side of the encoder's last map for a square picture of `side` pixels; below 1 it is too small."""
    for kernel in IMAGE_KERNELS:
        side = (side - kernel) // 2 + 1
    return side
