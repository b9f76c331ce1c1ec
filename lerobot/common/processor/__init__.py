"""What happens to a batch before the policy and to an action after it, saved beside the weights."""

from lerobot.common.processor.action_tokenizer import ActionTokenizerProcessorStep
from lerobot.common.processor.aloha import AlohaActionsProcessorStep, AlohaInputsProcessorStep
from lerobot.common.processor.batch import AddBatchDimensionProcessorStep
from lerobot.common.processor.converters import (
    batch_to_transition,
    create_transition,
    from_tensor_to_numpy,
    identity_transition,
    observation_to_transition,
    policy_action_to_transition,
    robot_action_observation_to_transition,
    robot_action_to_transition,
    to_tensor,
    transition_to_batch,
    transition_to_observation,
    transition_to_policy_action,
    transition_to_robot_action,
)
from lerobot.common.processor.core import (
    EnvAction,
    EnvTransition,
    PolicyAction,
    RobotAction,
    RobotObservation,
    TransitionKey,
)
from lerobot.common.processor.device import DeviceProcessorStep
from lerobot.common.processor.env_steps import IsaaclabArenaProcessorStep, LiberoProcessorStep
from lerobot.common.processor.factory import (
    DefaultPolicyProcessorSteps,
    make_default_policy_processor_steps,
    make_default_pre_post_processors,
    make_default_processors,
    make_default_robot_action_processor,
    make_default_robot_observation_processor,
    make_default_teleop_action_processor,
    make_policy_processor_pipelines,
)
from lerobot.common.processor.images import ImageCropResizeProcessorStep, images_to_float
from lerobot.common.processor.interaction import (
    AddTeleopActionAsComplimentaryDataStep,
    AddTeleopEventsAsInfoStep,
    GripperPenaltyProcessorStep,
    InterventionActionProcessorStep,
    JointVelocityProcessorStep,
    MotorCurrentProcessorStep,
    TeleopEvents,
    TimeLimitProcessorStep,
)
from lerobot.common.processor.loading import ProcessorMigrationError
from lerobot.common.processor.migration import statistics_from_legacy_state
from lerobot.common.processor.normalize import (
    NormalizerProcessorStep,
    UnnormalizerProcessorStep,
    hotswap_stats,
)
from lerobot.common.processor.observation import VanillaObservationProcessorStep
from lerobot.common.processor.pipeline import (
    DataProcessorPipeline,
    IdentityProcessorStep,
    PolicyProcessorPipeline,
    ProcessorKwargs,
    RobotProcessorPipeline,
)
from lerobot.common.processor.registry import ProcessorStepRegistry
from lerobot.common.processor.relative_actions import (
    AbsoluteActionsProcessorStep,
    RelativeActionsProcessorStep,
    connect_relative_actions,
    to_absolute_actions,
    to_relative_actions,
)
from lerobot.common.processor.rename import RenameObservationsProcessorStep, rename_stats
from lerobot.common.processor.robot_actions import (
    MapDeltaActionToRobotActionStep,
    MapTensorToDeltaActionDictStep,
    Numpy2TorchActionProcessorStep,
    PolicyActionToRobotActionProcessorStep,
    RobotActionToPolicyActionProcessorStep,
    Torch2NumpyActionProcessorStep,
)
from lerobot.common.processor.steps import (
    ActionProcessorStep,
    ComplementaryDataProcessorStep,
    DoneProcessorStep,
    InfoProcessorStep,
    ObservationProcessorStep,
    PolicyActionProcessorStep,
    ProcessorStep,
    RewardProcessorStep,
    RobotActionProcessorStep,
    TruncatedProcessorStep,
)
from lerobot.common.processor.supervision import (
    GymHILAdapterProcessorStep,
    HasTeleopEvents,
    RewardClassifierProcessorStep,
)
from lerobot.common.processor.text import (
    NewLineTaskProcessorStep,
    Pi0NewLineProcessor,
    Pi05PrepareStateTokenizerProcessorStep,
    SmolVLANewLineProcessor,
)
from lerobot.common.processor.tokenizer import TokenizerProcessorStep

__all__ = [
    "AbsoluteActionsProcessorStep",
    "ActionProcessorStep",
    "ActionTokenizerProcessorStep",
    "AddBatchDimensionProcessorStep",
    "AddTeleopActionAsComplimentaryDataStep",
    "AddTeleopEventsAsInfoStep",
    "AlohaActionsProcessorStep",
    "AlohaInputsProcessorStep",
    "ComplementaryDataProcessorStep",
    "DataProcessorPipeline",
    "DefaultPolicyProcessorSteps",
    "DeviceProcessorStep",
    "DoneProcessorStep",
    "EnvAction",
    "EnvTransition",
    "GripperPenaltyProcessorStep",
    "GymHILAdapterProcessorStep",
    "HasTeleopEvents",
    "IdentityProcessorStep",
    "ImageCropResizeProcessorStep",
    "InfoProcessorStep",
    "InterventionActionProcessorStep",
    "IsaaclabArenaProcessorStep",
    "JointVelocityProcessorStep",
    "LiberoProcessorStep",
    "MapDeltaActionToRobotActionStep",
    "MapTensorToDeltaActionDictStep",
    "MotorCurrentProcessorStep",
    "NewLineTaskProcessorStep",
    "NormalizerProcessorStep",
    "Numpy2TorchActionProcessorStep",
    "ObservationProcessorStep",
    "Pi05PrepareStateTokenizerProcessorStep",
    "Pi0NewLineProcessor",
    "PolicyAction",
    "PolicyActionProcessorStep",
    "PolicyActionToRobotActionProcessorStep",
    "PolicyProcessorPipeline",
    "ProcessorKwargs",
    "ProcessorMigrationError",
    "ProcessorStep",
    "ProcessorStepRegistry",
    "RelativeActionsProcessorStep",
    "RenameObservationsProcessorStep",
    "RewardClassifierProcessorStep",
    "RewardProcessorStep",
    "RobotAction",
    "RobotActionProcessorStep",
    "RobotActionToPolicyActionProcessorStep",
    "RobotObservation",
    "RobotProcessorPipeline",
    "SmolVLANewLineProcessor",
    "TeleopEvents",
    "TimeLimitProcessorStep",
    "TokenizerProcessorStep",
    "Torch2NumpyActionProcessorStep",
    "TransitionKey",
    "TruncatedProcessorStep",
    "UnnormalizerProcessorStep",
    "VanillaObservationProcessorStep",
    "batch_to_transition",
    "connect_relative_actions",
    "create_transition",
    "from_tensor_to_numpy",
    "hotswap_stats",
    "identity_transition",
    "images_to_float",
    "make_default_policy_processor_steps",
    "make_default_pre_post_processors",
    "make_default_processors",
    "make_default_robot_action_processor",
    "make_default_robot_observation_processor",
    "make_default_teleop_action_processor",
    "make_policy_processor_pipelines",
    "observation_to_transition",
    "policy_action_to_transition",
    "rename_stats",
    "robot_action_observation_to_transition",
    "robot_action_to_transition",
    "statistics_from_legacy_state",
    "to_absolute_actions",
    "to_relative_actions",
    "to_tensor",
    "transition_to_batch",
    "transition_to_observation",
    "transition_to_policy_action",
    "transition_to_robot_action",
]
