"""What a batch has to bring, checked in one place: one message for every input that a policy cannot use."""

from __future__ import annotations

from collections.abc import Collection

from torch import Tensor

from lerobot.common.constants import ACTION
from lerobot.configs.policies import PreTrainedConfig
from lerobot.configs.types import FeatureType, PolicyFeature


class MissingInputError(KeyError, ValueError):
    """A batch lacks what the policy reads; the message names it, what there is, and what to change."""

    def __str__(self) -> str:
        return str(self.args[0])


def require(config: PreTrainedConfig, batch: Collection[str], keys: Collection[str], fix: str) -> None:
    """Raise MissingInputError unless the batch has all of `keys`; `fix` says what to do about it."""
    if missing := [key for key in keys if key not in batch]:
        raise MissingInputError(
            f"The batch lacks {_names(missing)}, which policy '{config.type}' reads; it has {_names(batch)}. {fix}"
        )


def require_inputs(
    config: PreTrainedConfig, batch: dict[str, Tensor], fixed_size: bool = False, given: Collection[str] = ()
) -> None:
    """Raise MissingInputError for an absent input of the configuration, ValueError for one of another shape.

    Inputs are (B, ...) or (B, T, ...). fixed_size: pictures have to have the size that the network was built for.
    given: pictures whose features the batch has instead.
    """
    features = {k: f for k, f in config.input_features.items() if k not in given}
    require(
        config,
        batch,
        features,
        "Names come from the dataset that it was trained on: rename with --rename_map, or choose cameras with "
        "--policy.cameras when training.",
    )
    for key, feature in features.items():
        if feature.type is FeatureType.VISUAL:
            _check_picture(config, key, batch[key], fixed_size)
        else:
            _check_vector(config, key, feature, batch[key])


def require_actions(config: PreTrainedConfig, batch: dict[str, Tensor], steps: int, field: str) -> None:
    """Raise unless the batch has actions (B, steps, A) to learn; `field` is the flag that sets `steps`."""
    require(config, batch, [ACTION], "Training needs the recorded actions; to act, call select_action.")
    actions = batch[ACTION]
    if actions.dim() != 3:
        raise ValueError(f"'{ACTION}' has shape {tuple(actions.shape)}; expected (batch, {steps}, width).")
    if actions.shape[1] != steps:
        raise ValueError(
            f"'{ACTION}' has {actions.shape[1]} steps, {field} asks for {steps}: the time windows of the dataset "
            "(delta_timestamps) come from another configuration."
        )
    _check_vector(config, ACTION, config.action_feature, actions)


def _check_vector(config: PreTrainedConfig, key: str, feature: PolicyFeature, value: Tensor) -> None:
    width = feature.shape[-1]
    if value.dim() < 2 or value.shape[-1] != width:
        raise ValueError(
            f"'{key}' has shape {tuple(value.shape)}; policy '{config.type}' was built for (batch, {width}): the "
            "dataset or robot is another one than the policy was made for, or the batch axis is missing."
        )


def _check_picture(config: PreTrainedConfig, key: str, value: Tensor, fixed_size: bool) -> None:
    channels, height, width = config.image_shapes[key]
    if value.dim() not in (4, 5) or value.shape[-3] != channels:
        raise ValueError(
            f"Pictures of '{key}' have shape {tuple(value.shape)}; expected (batch, {channels}, height, width), RGB in "
            "[0, 1]. A single frame gets its batch axis from the preprocessor."
        )
    if not value.is_floating_point():
        raise ValueError(
            f"Pictures of '{key}' are {value.dtype}; policy '{config.type}' reads floats in [0, 1]: call "
            "lerobot.common.processor.images_to_float on the batch before the preprocessor."
        )
    if fixed_size and value.shape[-2:] != (height, width):
        raise ValueError(
            f"Pictures of '{key}' are {value.shape[-2]}x{value.shape[-1]}; policy '{config.type}' was built for "
            f"{height}x{width}: let the camera give that size, or train with --policy.image_size=[{height},{width}], "
            "to which every picture is then resized."
        )


def _names(keys: Collection[str], most: int = 12) -> str:
    names = [f"'{key}'" for key in keys]
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "") or "nothing"
