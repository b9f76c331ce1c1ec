"""The pipelines that policies and robots use by default."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lerobot.common.constants import POLICY_POSTPROCESSOR_DEFAULT_NAME, POLICY_PREPROCESSOR_DEFAULT_NAME
from lerobot.common.processor.batch import AddBatchDimensionProcessorStep
from lerobot.common.processor.converters import (
    observation_to_transition,
    policy_action_to_transition,
    robot_action_observation_to_transition,
    transition_to_observation,
    transition_to_policy_action,
    transition_to_robot_action,
)
from lerobot.common.processor.device import DeviceProcessorStep
from lerobot.common.processor.images import ImageCropResizeProcessorStep
from lerobot.common.processor.normalize import NormalizerProcessorStep, Stats, UnnormalizerProcessorStep
from lerobot.common.processor.pipeline import DataProcessorPipeline, IdentityProcessorStep
from lerobot.common.processor.relative_actions import connect_relative_actions
from lerobot.common.processor.rename import RenameObservationsProcessorStep
from lerobot.common.processor.steps import ProcessorStep

if TYPE_CHECKING:
    from lerobot.configs.policies import PreTrainedConfig

PrePost = tuple[DataProcessorPipeline, DataProcessorPipeline]


def make_default_pre_post_processors(
    config: PreTrainedConfig,
    dataset_stats: Stats | None = None,
    *,
    extra_steps_before_device: Sequence[ProcessorStep] = (),
    image_size: tuple[int, int] | None = None,
) -> PrePost:
    """rename, batch axis, [resize], [extra steps], device, normalize | unnormalize, to the CPU.

    Pictures are resized if `image_size` or `config.image_size` (height, width) is set. The order is a stored
    contract: it fixes the names of the state files.
    """
    size = image_size or config.image_size
    resize = [ImageCropResizeProcessorStep(resize_size=tuple(size))] if size else []
    steps = make_default_policy_processor_steps(config, dataset_stats)
    before = [steps.rename, steps.add_batch_dimension, *resize, *extra_steps_before_device]
    return make_policy_processor_pipelines(
        [*before, steps.device, steps.normalizer], [steps.unnormalizer, steps.to_cpu]
    )


@dataclass
class DefaultPolicyProcessorSteps:
    """The steps that every policy's pipelines are made of."""

    rename: RenameObservationsProcessorStep
    add_batch_dimension: AddBatchDimensionProcessorStep
    device: DeviceProcessorStep
    normalizer: NormalizerProcessorStep
    unnormalizer: UnnormalizerProcessorStep
    to_cpu: DeviceProcessorStep


def make_default_policy_processor_steps(
    config: PreTrainedConfig, dataset_stats: Stats | None = None
) -> DefaultPolicyProcessorSteps:
    """Fresh steps for a policy's features, device and modes of normalization."""
    shared = {"norm_map": config.normalization_mapping, "stats": dataset_stats}
    features = {**config.input_features, **config.output_features}
    return DefaultPolicyProcessorSteps(
        RenameObservationsProcessorStep(),
        AddBatchDimensionProcessorStep(),
        DeviceProcessorStep(config.device),
        NormalizerProcessorStep(features, device=config.device, **shared),
        UnnormalizerProcessorStep(config.output_features, **shared),
        DeviceProcessorStep("cpu"),
    )


def make_policy_processor_pipelines(
    input_steps: Sequence[ProcessorStep], output_steps: Sequence[ProcessorStep]
) -> PrePost:
    """(preprocessor from batch to batch, postprocessor from action to action), under the names of a checkpoint's files.

    Steps that make actions relative and absolute are connected.
    """
    connect_relative_actions(input_steps, output_steps)
    preprocessor = DataProcessorPipeline(list(input_steps), name=POLICY_PREPROCESSOR_DEFAULT_NAME)
    postprocessor = DataProcessorPipeline(
        list(output_steps),
        name=POLICY_POSTPROCESSOR_DEFAULT_NAME,
        to_transition=policy_action_to_transition,
        to_output=transition_to_policy_action,
    )
    return preprocessor, postprocessor


def make_default_teleop_action_processor() -> DataProcessorPipeline:
    """(action, observation) of a teleoperator -> the action, unchanged."""
    return DataProcessorPipeline(
        [IdentityProcessorStep()],
        to_transition=robot_action_observation_to_transition,
        to_output=transition_to_robot_action,
    )


def make_default_robot_action_processor() -> DataProcessorPipeline:
    """(action, observation) of a robot -> the action, unchanged."""
    return make_default_teleop_action_processor()


def make_default_robot_observation_processor() -> DataProcessorPipeline:
    """An observation of a robot -> the observation, unchanged."""
    return DataProcessorPipeline(
        [IdentityProcessorStep()],
        to_transition=observation_to_transition,
        to_output=transition_to_observation,
    )


def make_default_processors() -> tuple[DataProcessorPipeline, DataProcessorPipeline, DataProcessorPipeline]:
    """The default pipelines for teleoperator actions, robot actions and robot observations."""
    return (
        make_default_teleop_action_processor(),
        make_default_robot_action_processor(),
        make_default_robot_observation_processor(),
    )
