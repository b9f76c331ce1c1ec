"""Configurations of environments of LeRobot 0.3.4-0.4.4 that do not run here, so that files with them are read.

`gym_manipulator` is a real robot under human supervision (HIL-SERL), `libero` a benchmark in simulation.
"""

from dataclasses import dataclass, field
from typing import Any

from lerobot.common.constants import ACTION, OBS_IMAGES, OBS_STATE
from lerobot.common.envs.configs import EnvConfig
from lerobot.configs.types import FeatureType


@dataclass
class ImagePreprocessingConfig:
    """Crop (top, left, height, width) by camera, then resize to (height, width)."""

    crop_params_dict: dict[str, tuple[int, int, int, int]] | None = None
    resize_size: tuple[int, int] | None = None


@dataclass
class RewardClassifierConfig:
    """A network that tells success from pictures."""

    pretrained_path: str | None = None
    success_threshold: float = 0.5
    success_reward: float = 1.0


@dataclass
class InverseKinematicsConfig:
    """Control of the gripper's position in space."""

    urdf_path: str | None = None
    target_frame_name: str | None = None
    end_effector_bounds: dict[str, list[float]] | None = None
    end_effector_step_sizes: dict[str, float] | None = None


@dataclass
class ObservationConfig:
    """What is observed beside joint positions and pictures."""

    add_joint_velocity_to_observation: bool = False
    add_current_to_observation: bool = False
    add_ee_pose_to_observation: bool = False
    display_cameras: bool = False


@dataclass
class GripperConfig:
    """Whether the gripper is controlled, and what opening and closing costs."""

    use_gripper: bool = True
    gripper_penalty: float = 0.0


@dataclass
class ResetConfig:
    """Between two episodes."""

    fixed_reset_joint_positions: Any | None = None
    reset_time_s: float = 5.0
    control_time_s: float = 20.0
    terminate_on_success: bool = True


@dataclass
class HILSerlProcessorConfig:
    """What stands between robot and policy."""

    control_mode: str = "gamepad"
    observation: ObservationConfig | None = None
    image_preprocessing: ImagePreprocessingConfig | None = None
    gripper: GripperConfig | None = None
    reset: ResetConfig | None = None
    inverse_kinematics: InverseKinematicsConfig | None = None
    reward_classifier: RewardClassifierConfig | None = None
    max_gripper_pos: float | None = 100.0


@EnvConfig.register_subclass("gym_manipulator")
@dataclass
class HILSerlRobotEnvConfig(EnvConfig):
    """A real robot as an environment; `robot` and `teleop` are kept as they stand in a file."""

    runs_here = False

    robot: dict[str, Any] | None = None
    teleop: dict[str, Any] | None = None
    processor: HILSerlProcessorConfig = field(default_factory=HILSerlProcessorConfig)
    name: str = "real_robot"

    @property
    def gym_kwargs(self) -> dict[str, Any]:
        return {}


LIBERO_KEY_EEF_POS = "robot_state/eef/pos"
LIBERO_KEY_EEF_QUAT = "robot_state/eef/quat"
LIBERO_KEY_EEF_MAT = "robot_state/eef/mat"
LIBERO_KEY_EEF_AXISANGLE = "robot_state/eef/axisangle"
LIBERO_KEY_GRIPPER_QPOS = "robot_state/gripper/qpos"
LIBERO_KEY_GRIPPER_QVEL = "robot_state/gripper/qvel"
LIBERO_KEY_JOINTS_POS = "robot_state/joints/pos"
LIBERO_KEY_JOINTS_VEL = "robot_state/joints/vel"
LIBERO_KEY_PIXELS_AGENTVIEW = "pixels/agentview_image"
LIBERO_KEY_PIXELS_EYE_IN_HAND = "pixels/robot0_eye_in_hand_image"

# key of the environment: the policy's name
LIBERO_CAMERAS = {
    LIBERO_KEY_PIXELS_AGENTVIEW: f"{OBS_IMAGES}.image",
    LIBERO_KEY_PIXELS_EYE_IN_HAND: f"{OBS_IMAGES}.image2",
}
# key of the environment: (shape, name below observation.state)
LIBERO_STATE = {
    LIBERO_KEY_EEF_POS: ((3,), "eef_pos"),
    LIBERO_KEY_EEF_QUAT: ((4,), "eef_quat"),
    LIBERO_KEY_EEF_MAT: ((3, 3), "eef_mat"),
    LIBERO_KEY_GRIPPER_QPOS: ((2,), "gripper_qpos"),
    LIBERO_KEY_GRIPPER_QVEL: ((2,), "gripper_qvel"),
    LIBERO_KEY_JOINTS_POS: ((7,), "joint_pos"),
    LIBERO_KEY_JOINTS_VEL: ((7,), "joint_vel"),
}


@EnvConfig.register_subclass("libero")
@dataclass
class LiberoEnv(EnvConfig):
    """The LIBERO benchmark of manipulation tasks."""

    runs_here = False

    task: str = "libero_10"
    fps: int = 30
    task_ids: list[int] | None = None
    episode_length: int | None = None
    obs_type: str = "pixels_agent_pos"  # or "pixels"
    render_mode: str = "rgb_array"
    camera_name: str = "agentview_image,robot0_eye_in_hand_image"
    init_states: bool = True
    camera_name_mapping: dict[str, str] | None = None
    observation_height: int = 360
    observation_width: int = 360
    control_mode: str = "relative"  # or "absolute"

    def __post_init__(self):
        if self.obs_type not in ("pixels", "pixels_agent_pos"):
            raise ValueError(f"--env.obs_type={self.obs_type}: expected pixels or pixels_agent_pos.")
        self._add("action", FeatureType.ACTION, (7,), ACTION)
        for camera, name in LIBERO_CAMERAS.items():
            shape = (self.observation_height, self.observation_width, 3)
            self._add(camera, FeatureType.VISUAL, shape, name)
        if self.obs_type == "pixels_agent_pos":
            for key, (shape, name) in LIBERO_STATE.items():
                self._add(key, FeatureType.STATE, shape, f"{OBS_STATE}.{name}")

    @property
    def gym_kwargs(self) -> dict[str, Any]:
        kwargs = {"obs_type": self.obs_type, "render_mode": self.render_mode}
        return kwargs if self.task_ids is None else {**kwargs, "task_ids": self.task_ids}
