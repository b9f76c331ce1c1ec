"""The base of every policy's configuration, and how it is read and written."""

import abc
import dataclasses
import json
import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import draccus

from lerobot.common.constants import ACTION, CONFIG_NAME, EXTRAS_NAME, OBS_STATE
from lerobot.common.optim.optimizers import OptimizerConfig
from lerobot.common.optim.schedulers import LRSchedulerConfig
from lerobot.common.utils.device import (
    auto_select_torch_device,
    is_amp_available,
    is_torch_device_available,
)
from lerobot.common.utils.hub import HubMixin, find_file
from lerobot.configs.types import FeatureType, NormalizationMode, PolicyFeature

FROZEN_FEATURE_MODES = ("none", "vision", "prefix", "auto")
INFERENCE_MODES = ("exact", "plain", "bf16", "int8")


def extra(default: Any) -> Any:
    """A configuration field that LeRobot 0.4.4 does not know: it is stored in extras.json, not in config.json."""
    if isinstance(default, (list, dict)):
        return field(default_factory=lambda: type(default)(default), metadata={"extra": True})
    return field(default=default, metadata={"extra": True})


@dataclass
class PreTrainedConfig(draccus.ChoiceRegistry, HubMixin, abc.ABC):
    """Fields that every policy has.

    Features map a key of the batch to its role and shape. `device` is chosen automatically when empty or
    unavailable. `normalization_mapping` (declared by each policy) maps a FeatureType name to a NormalizationMode.
    """

    counts: ClassVar[tuple[str, ...]] = ()  # fields of a policy that are counts or sizes: at least 1, or empty

    n_obs_steps: int = 1  # observation frames given to the policy
    input_features: dict[str, PolicyFeature] = field(default_factory=dict)  # filled from the dataset
    output_features: dict[str, PolicyFeature] = field(default_factory=dict)  # filled from the dataset
    device: str | None = None  # cpu, cuda, cuda:1, mps; empty: the best one here
    use_amp: bool = False  # autocast (bfloat16 on a CPU, else the device's default)
    use_peft: bool = False  # the checkpoint is a PEFT adapter
    push_to_hub: bool = False  # upload after training (needs repo_id)
    repo_id: str | None = None  # where to upload
    private: bool | None = None  # make the uploaded repository private
    tags: list[str] | None = None  # tags of the model card
    license: str | None = None  # licence of the model card
    pretrained_path: str | None = None  # the checkpoint that this configuration came from

    loss_over_padding: bool = extra(False)  # count padded steps in the loss, as LeRobot 0.4.4 does
    # (height, width) that the preprocessor resizes every camera to; empty: pictures stay as they are
    image_size: tuple[int, int] | None = extra(None)
    # the dataset's cameras that the policy looks at, as `observation.images.laptop` or `laptop`; empty: all of them
    cameras: list[str] | None = extra(None)
    # what a frozen network makes of a frame is computed once and kept on disk: none, vision, prefix, or auto
    frozen_features: str = extra("none")
    # how a chunk is computed: exact (equal numbers, faster), plain, and on a CPU bf16 or int8, which tell their error
    inference: str = extra("exact")

    def __post_init__(self):
        self.pretrained_path = None if self.pretrained_path is None else str(self.pretrained_path)
        for name, modes in (("frozen_features", FROZEN_FEATURE_MODES), ("inference", INFERENCE_MODES)):
            if getattr(self, name) not in modes:
                raise ValueError(f"--policy.{name}={getattr(self, name)}: expected one of {', '.join(modes)}.")
        if self.image_size is not None and (len(self.image_size) != 2 or min(self.image_size) < 1):
            raise ValueError(f"--policy.image_size={self.image_size}: expected [height,width], each at least 1.")
        for name in ("n_obs_steps", *self.counts):
            if (value := getattr(self, name)) is not None and value < 1:
                raise ValueError(f"--policy.{name}={value}: expected at least 1.")
        if not self.device or not is_torch_device_available(self.device):
            found = auto_select_torch_device().type
            if self.device:
                logging.warning("Device '%s' is not available; using '%s'.", self.device, found)
            self.device = found
        if self.use_amp and not is_amp_available(self.device):
            logging.warning("AMP is not available on '%s': use_amp is switched off.", self.device)
            self.use_amp = False

    @classmethod
    def upgrade(cls, raw: dict[str, Any]) -> dict[str, Any]:
        """The fields of a stored config.json in today's terms; overridden where releases differ in more than names."""
        return raw

    @property
    def type(self) -> str:
        """The registered name, for example `smolvla`."""
        return self.get_choice_name(type(self))

    @property
    @abc.abstractmethod
    def observation_delta_indices(self) -> list[int] | None:
        """Frames of each observation in a training sample, relative to the current one."""

    @property
    @abc.abstractmethod
    def action_delta_indices(self) -> list[int] | None:
        """Frames of the actions in a training sample, relative to the current one."""

    @property
    @abc.abstractmethod
    def reward_delta_indices(self) -> list[int] | None:
        """Frames of the rewards in a training sample, relative to the current one."""

    @abc.abstractmethod
    def get_optimizer_preset(self) -> OptimizerConfig:
        """The optimizer that this policy is trained with by default."""

    @abc.abstractmethod
    def get_scheduler_preset(self) -> LRSchedulerConfig | None:
        """The learning-rate schedule that this policy is trained with by default."""

    @abc.abstractmethod
    def validate_features(self) -> None:
        """Raise ValueError if the features cannot be used by this policy."""

    def warn_of_short_training(self, steps: int) -> None:
        """Log a warning if a run of so many steps cannot teach this policy to act; by default it can."""
        return None

    def adapt_stats(self, stats: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        """The dataset's statistics with those replaced that the policy was made for; by default none."""
        return stats

    @property
    def robot_state_feature(self) -> PolicyFeature | None:
        """The feature `observation.state`."""
        return self.input_features.get(OBS_STATE)

    @property
    def env_state_feature(self) -> PolicyFeature | None:
        """The first input of type ENV."""
        return next((f for f in self.input_features.values() if f.type is FeatureType.ENV), None)

    @property
    def image_features(self) -> dict[str, PolicyFeature]:
        """Inputs of type VISUAL in their stored order, which is the camera order everywhere."""
        return {k: f for k, f in self.input_features.items() if f.type is FeatureType.VISUAL}

    @property
    def image_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape (C, H, W) in which each camera's pictures reach the network, that is after `image_size`."""
        shapes = {k: tuple(f.shape) for k, f in self.image_features.items()}
        return {k: (s[0], *self.image_size) for k, s in shapes.items()} if self.image_size else shapes

    @property
    def action_feature(self) -> PolicyFeature | None:
        """The feature `action`."""
        return self.output_features.get(ACTION)

    @classmethod
    def extra_fields(cls) -> dict[str, dataclasses.Field]:
        """Fields of our own, by name."""
        return {f.name: f for f in dataclasses.fields(cls) if f.metadata.get("extra")}

    def extras(self) -> dict[str, Any]:
        """Fields of our own that differ from their default, JSON-encoded."""
        encoded = draccus.encode(self)
        return {name: encoded[name] for name, f in self.extra_fields().items() if getattr(self, name) != _default_of(f)}

    def _save_pretrained(self, folder: Path) -> None:
        encoded = draccus.encode(self)
        known = {k: v for k, v in encoded.items() if k not in self.extra_fields()}
        (folder / CONFIG_NAME).write_text(json.dumps({"type": self.type, **known}, indent=4))
        (folder / EXTRAS_NAME).unlink(missing_ok=True)
        if extras := self.extras():
            (folder / EXTRAS_NAME).write_text(json.dumps(extras, indent=4))

    @classmethod
    def from_pretrained(
        cls, pretrained_name_or_path: str | Path, *, cli_overrides: list[str] | None = None, **hub
    ) -> "PreTrainedConfig":
        """Read the configuration of a checkpoint (folder, cache or hub), with `--field=value` overrides on top.

        Unknown fields are ignored with one warning. Raises FileNotFoundError without config.json and ValueError
        for an unregistered `type` or a value that cannot be decoded.
        """
        from lerobot.configs.parser import decode, merge, overrides_to_dict  # the parser knows this class

        raw = read_policy_config(pretrained_name_or_path, **hub)
        chosen = cls._class_of(raw, pretrained_name_or_path)
        raw = merge(raw, overrides_to_dict(chosen, cli_overrides or []))
        return decode(chosen, drop_unknown(chosen, raw, CONFIG_NAME), where=f"{pretrained_name_or_path}")

    @classmethod
    def _class_of(cls, raw: dict, where):
        import lerobot.common.policies  # noqa: F401  registers every policy

        known = PreTrainedConfig.get_known_choices()
        if raw.get("type") not in known:
            raise ValueError(
                f"config.json of '{where}' has type {raw.get('type')!r}; known policies: {', '.join(sorted(known))}."
            )
        return known[raw["type"]]


def read_policy_config(name_or_path: str | Path, **hub) -> dict[str, Any]:
    """The JSON of a checkpoint's config.json, in today's terms, with the fields of its extras.json merged in."""
    import lerobot.common.policies  # noqa: F401  registers every policy

    path = find_file(name_or_path, CONFIG_NAME, **hub)
    try:
        raw = json.loads(Path(path).read_text())
    except json.JSONDecodeError as e:
        raise ValueError(f"{path} is not valid JSON ({e}); the checkpoint is damaged.") from e
    extras = find_file(name_or_path, EXTRAS_NAME, required=False, **hub)
    chosen = PreTrainedConfig.get_known_choices().get(raw.get("type"), PreTrainedConfig)
    return {**chosen.upgrade(raw), **(json.loads(extras.read_text()) if extras else {})}


def drop_unknown(cls: type[PreTrainedConfig], raw: dict[str, Any], where: str) -> dict[str, Any]:
    """`raw` without `type` and without fields and enum values that `cls` does not know; warns once with their names."""
    known = {f.name for f in dataclasses.fields(cls)}
    unknown = sorted(set(raw) - known - {"type"})
    if unknown:
        logging.warning("%s: unknown fields are ignored: %s", where, ", ".join(unknown))
    kept = {k: v for k, v in raw.items() if k in known}
    for name in ("input_features", "output_features"):
        features = kept.get(name) or {}
        kept[name] = {k: f for k, f in features.items() if _is_known_feature(f)}
    return kept


def _is_known_feature(feature: Any) -> bool:
    return not isinstance(feature, dict) or feature.get("type") in FeatureType.__members__


def _default_of(f: dataclasses.Field) -> Any:
    return f.default if f.default is not dataclasses.MISSING else f.default_factory()


__all__ = [
    "FeatureType",
    "NormalizationMode",
    "PolicyFeature",
    "PreTrainedConfig",
    "drop_unknown",
    "extra",
    "read_policy_config",
]
