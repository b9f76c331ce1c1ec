"""Which camera of a dataset takes which place of a checkpoint."""

from __future__ import annotations

from collections.abc import Iterable

from lerobot.common.constants import OBS_IMAGES, POLICY_PREPROCESSOR_DEFAULT_NAME
from lerobot.common.utils.hub import find_file
from lerobot.common.utils.io_utils import read_json
from lerobot.configs.policies import PreTrainedConfig
from lerobot.configs.types import FeatureType, PolicyFeature

EMPTY_CAMERA = f"{OBS_IMAGES}.empty_camera_"  # followed by a number: a place that no picture fills


def is_empty_camera(name: str) -> bool:
    """Whether an input only fills the place of an absent camera."""
    return name.startswith(EMPTY_CAMERA)


def checkpoint_rename_map(cfg: PreTrainedConfig) -> dict[str, str]:
    """The renaming saved in the preprocessor of the checkpoint that `cfg` came from; empty without one."""
    if not cfg.pretrained_path:
        return {}
    file = find_file(cfg.pretrained_path, f"{POLICY_PREPROCESSOR_DEFAULT_NAME}.json", required=False)
    steps = read_json(file).get("steps", []) if file else []
    found = [s["config"].get("rename_map") for s in steps if s.get("registry_name") == "rename_observations_processor"]
    return next((m for m in found if m), {})


def match_cameras(
    cfg: PreTrainedConfig, features: dict[str, PolicyFeature], rename_map: dict[str, str] | None = None
) -> dict[str, str]:
    """The renaming {dataset key: checkpoint key} that brings a dataset's cameras to those of a checkpoint.

    `features` are the dataset's. What `rename_map` says counts; without one, what the checkpoint's own preprocessor
    says, if the dataset has these names. For policies that can do without some cameras (`empty_cameras`), cameras of
    equal name then stay, and the others take the free places of the checkpoint in the dataset's order. Raises
    ValueError for names that do not exist and for more cameras than the checkpoint has.
    """
    saved = {} if rename_map else checkpoint_rename_map(cfg)
    chosen = rename_map or (saved if set(saved) <= set(features) else {})
    places = list(cfg.image_features)
    if not (cfg.pretrained_path and places and hasattr(cfg, "empty_cameras")):
        return dict(chosen)
    cameras = [k for k, f in features.items() if f.type is FeatureType.VISUAL and _is_wanted(k, chosen, cfg.cameras)]
    _refuse_unknown_names(chosen, features, places, cfg)
    filled = {k: chosen.get(k, k) for k in cameras if chosen.get(k, k) in places}
    free = [p for p in places if p not in filled.values()]
    rest = [k for k in cameras if k not in filled]
    if len(rest) > len(free):
        raise ValueError(
            f"The dataset has {len(cameras)} cameras ({_short(cameras)}), the checkpoint "
            f"'{cfg.pretrained_path}' reads {len(places)} ({_short(places)}). Choose which ones it sees, for example "
            f"--policy.cameras=[{','.join(c.rpartition('.')[2] for c in cameras[: len(places)])}]."
        )
    filled |= dict(zip(rest, free, strict=False))
    others = {k: v for k, v in chosen.items() if k not in filled}
    return {**others, **{k: place for k, place in filled.items() if k != place}}


def camera_table(cfg: PreTrainedConfig, features: dict[str, PolicyFeature], rename_map: dict[str, str]) -> str | None:
    """Lines that show what `match_cameras` found; None where every camera keeps its name and none is absent.

    `cfg` must still have the features of the checkpoint.
    """
    source = {rename_map.get(k, k): k for k in features}
    places = [p for p in cfg.image_features if p in source or not is_empty_camera(p)]
    if not cfg.pretrained_path or all(source.get(p) == p for p in places):
        return None
    width = max(len(p) for p in places)
    rows = [f"  {p:<{width}}  <-  {source.get(p, '(empty)')}" for p in places]
    how = '  (another order: --rename_map=\'{"DATASET KEY": "CHECKPOINT KEY", ...}\')'
    return "\n".join([f"Cameras of {cfg.pretrained_path}  <-  cameras of the dataset", *rows, how])


def keep_places(cfg: PreTrainedConfig, inputs: dict[str, PolicyFeature]) -> dict[str, PolicyFeature]:
    """`inputs` (renamed) in the camera order of the checkpoint that `cfg` came from; the places that they leave open
    become empty cameras, and `cfg.empty_cameras` counts them."""
    places = list(cfg.image_features)
    cameras = [p for p in places if p in inputs] + [
        k for k, f in inputs.items() if f.type is FeatureType.VISUAL and k not in places
    ]
    cfg.empty_cameras = max(cfg.empty_cameras, len(places) - len(cameras))
    return {**{k: f for k, f in inputs.items() if k not in cameras}, **{k: inputs[k] for k in cameras}}


def _is_wanted(key: str, renamed: dict[str, str], wanted: list[str] | None) -> bool:
    names = {n for k in (key, renamed.get(key, key)) for n in (k, k.rpartition(".")[2])}
    return wanted is None or bool(names & set(wanted))


def _refuse_unknown_names(chosen: dict[str, str], features: dict, places: list[str], cfg: PreTrainedConfig) -> None:
    unknown = [k for k in chosen if k not in features]
    if unknown:
        raise ValueError(f"--rename_map names {_short(unknown)}, the dataset has {_short(features)}.")
    targets = [v for k, v in chosen.items() if features[k].type is FeatureType.VISUAL]
    wrong = [t for t in targets if t not in places]
    if wrong:
        raise ValueError(
            f"--rename_map leads to {_short(wrong)}; the cameras of checkpoint '{cfg.pretrained_path}' are "
            f"{_short(places)}."
        )
    if len(set(targets)) < len(targets):
        raise ValueError(f"--rename_map leads several cameras to one name: {chosen}.")


def _short(names: Iterable[str]) -> str:
    return ", ".join(names) or "none"
