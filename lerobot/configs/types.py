"""What a feature is and how it is normalized."""

from dataclasses import dataclass
from enum import Enum
from typing import Any, Protocol


class FeatureType(str, Enum):
    """The role of a feature; the string value equals the name, as configuration files write it."""

    STATE = "STATE"
    VISUAL = "VISUAL"
    ENV = "ENV"
    ACTION = "ACTION"
    REWARD = "REWARD"
    LANGUAGE = "LANGUAGE"


class PipelineFeatureType(str, Enum):
    """The side of a pipeline that a feature stands on."""

    ACTION = "ACTION"
    OBSERVATION = "OBSERVATION"


class NormalizationMode(str, Enum):
    """The affine map that a (un)normalizer applies, named by the statistics it needs."""

    MIN_MAX = "MIN_MAX"
    MEAN_STD = "MEAN_STD"
    IDENTITY = "IDENTITY"
    QUANTILES = "QUANTILES"
    QUANTILE10 = "QUANTILE10"


class RTCAttentionSchedule(str, Enum):
    """How the pull of the old chunk fades along the new one, in real-time chunking."""

    ZEROS = "ZEROS"
    ONES = "ONES"
    LINEAR = "LINEAR"
    EXP = "EXP"


class DictLike(Protocol):
    """Anything that is indexed by key."""

    def __getitem__(self, key: Any) -> Any: ...


@dataclass
class PolicyFeature:
    """Role and shape (channel-first for pictures, without batch and time axes) of one input or output."""

    type: FeatureType
    shape: tuple[int, ...]
