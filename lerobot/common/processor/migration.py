"""Statistics that checkpoints of legacy layouts (LeRobot up to 0.3.x) keep inside their weights."""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from lerobot.configs.policies import PreTrainedConfig

# Submodules that held statistics, those of inputs first; outputs are looked up in the reverse order. A
# checkpoint may lack one of the modules for actions, whose tensors shared memory.
_MODULES = (
    "normalize_inputs",
    "input_normalizer",
    "normalize",
    "unnormalize",
    "output_normalizer",
    "normalize_targets",
    "unnormalize_outputs",
)
# <module>.[<dataset>_]buffer_<feature with _ for .>.<statistic>
_KEY = re.compile(r"(?P<module>\w+)\.(?:(?P<dataset>.+?)[._])?buffer_(?P<feature>.+)\.(?P<stat>[^.]+)")

_Found = dict[str, dict[str, dict[str, Tensor]]]  # module -> feature as the buffer names it -> statistic


def statistics_from_legacy_state(
    state: dict[str, Tensor], config: PreTrainedConfig, dataset: str | None = None
) -> tuple[dict[str, dict[str, Tensor]], dict[str, Tensor]]:
    """Divide a state dict into statistics by feature and the weights that remain.

    Buffer names are compared with the names of the configuration's features, since they cannot be inverted
    (both `.` and `_` became `_`). Statistics that were never set (infinite) are left out. Where there are
    statistics of several datasets (`so100`, `so100-red`), `dataset` chooses; without it, they keep names such
    as `so100.buffer.action`, which no feature has, so that using the feature raises. Features without
    statistics are absent from the result.
    """
    by_dataset: dict[str, _Found] = {}
    remaining: dict[str, Tensor] = {}
    for key, value in state.items():
        plain = key.replace("_orig_mod.", "")
        if plain.partition(".")[0] not in _MODULES:
            remaining[key] = value
        elif match := _KEY.fullmatch(plain):
            features = by_dataset.setdefault(match["dataset"] or "", {}).setdefault(match["module"], {})
            features.setdefault(match["feature"], {})[match["stat"]] = value
    if not by_dataset:
        return {}, remaining
    chosen = _choose(by_dataset, dataset)
    if chosen is not None:
        return _by_feature(by_dataset[chosen], config), remaining
    stats = {
        f"{name}.buffer.{feature}": values
        for name, found in by_dataset.items()
        for feature, values in _by_feature(found, config).items()
    }
    return stats, remaining


def _choose(by_dataset: dict[str, _Found], wanted: str | None) -> str | None:
    """The dataset whose statistics count, or None if that is undecided."""
    if wanted is not None:
        if wanted not in by_dataset:
            raise ValueError(f"The weights hold no statistics of '{wanted}', only of {', '.join(sorted(by_dataset))}.")
        return wanted
    if "" in by_dataset or len(by_dataset) == 1:
        return "" if "" in by_dataset else next(iter(by_dataset))
    logging.warning(
        "The weights hold statistics of several datasets (%s); none is chosen. Fine-tuning takes them from "
        "the dataset.",
        ", ".join(sorted(by_dataset)),
    )
    return None


def _by_feature(found: _Found, config: PreTrainedConfig) -> dict[str, dict[str, Tensor]]:
    stats: dict[str, dict[str, Tensor]] = {}
    unknown = {feature for features in found.values() for feature in features}
    for features, modules in ((config.input_features, _MODULES[::-1]), (config.output_features, _MODULES)):
        for name in features:
            buffer = name.replace(".", "_")
            unknown.discard(buffer)
            values: dict[str, Tensor] = {}
            for module in modules:  # the preferred one last
                values.update(found.get(module, {}).get(buffer, {}))
            if any(torch.isinf(v).any() for v in values.values()):
                logging.warning("The statistics of '%s' in the weights were never set; they are not used.", name)
            elif values:
                stats[name] = values
    if unknown:
        logging.warning(
            "Statistics in the weights that belong to no feature of the configuration: %s.",
            ", ".join(sorted(unknown)),
        )
    return stats
