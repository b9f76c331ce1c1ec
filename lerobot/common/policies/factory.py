"""From a configuration to a policy with its features, and to its processors."""

from __future__ import annotations

import importlib
import logging
from pathlib import Path
from typing import Any, TypedDict

import lerobot.common.policies  # noqa: F401  registers every policy
from lerobot.common.constants import (
    ACTION,
    POLICY_POSTPROCESSOR_DEFAULT_NAME,
    POLICY_PREPROCESSOR_DEFAULT_NAME,
    SAFETENSORS_SINGLE_FILE,
)
from lerobot.common.datasets.utils import dataset_to_policy_features
from lerobot.common.policies.cameras import keep_places, match_cameras
from lerobot.common.policies.pretrained import PreTrainedPolicy, read_state
from lerobot.common.utils.hub import HUB_OPTIONS, find_file
from lerobot.configs.policies import PreTrainedConfig
from lerobot.configs.types import FeatureType


class ProcessorConfigKwargs(TypedDict, total=False):
    """Keyword arguments of `make_pre_post_processors`."""

    preprocessor_config_filename: str | None
    postprocessor_config_filename: str | None
    preprocessor_overrides: dict[str, Any] | None
    postprocessor_overrides: dict[str, Any] | None
    dataset_stats: dict[str, dict[str, Any]] | None


class UnknownPolicyError(ValueError, NotImplementedError):
    """No policy is registered under this name."""


def get_policy_class(name: str) -> type[PreTrainedPolicy]:
    """The policy class of a registered type, imported on demand."""
    config_class = _config_class(name)
    module = importlib.import_module(config_class.__module__.replace("configuration_", "modeling_"))
    return getattr(module, config_class.__name__.replace("Config", "Policy"))


def make_policy_config(policy_type: str, **kwargs) -> PreTrainedConfig:
    """A configuration of a registered type."""
    return _config_class(policy_type)(**kwargs)


def _config_class(name: str) -> type[PreTrainedConfig]:
    known = PreTrainedConfig.get_known_choices()
    if name not in known:
        raise UnknownPolicyError(f"Policy type '{name}' is not available; known: {', '.join(sorted(known))}.")
    return known[name]


def make_policy(cfg: PreTrainedConfig, ds_meta=None, env_cfg=None, rename_map=None) -> PreTrainedPolicy:
    """Build the policy of `cfg` for a dataset (training) or an environment, loading `cfg.pretrained_path` if set.

    With a dataset, the features are the dataset's, its cameras under the names of the checkpoint (`match_cameras`;
    `rename_map` chooses). With an environment and a checkpoint, the features are the checkpoint's. Raises ValueError
    for features that the policy cannot use.
    """
    if (ds_meta is None) == (env_cfg is None):
        raise ValueError("make_policy needs exactly one of ds_meta and env_cfg.")
    if ds_meta is not None:
        features = dataset_to_policy_features(ds_meta.features)
        set_features(cfg, features, match_cameras(cfg, features, rename_map))
    elif not cfg.pretrained_path:
        from lerobot.common.envs.utils import env_to_policy_features

        set_features(cfg, env_to_policy_features(env_cfg))
    policy_class = get_policy_class(cfg.type)
    if cfg.pretrained_path:
        policy = policy_class.from_pretrained(cfg.pretrained_path, config=cfg)
    else:
        policy_class.prepare_from_zero(cfg)
        policy = policy_class(cfg)
    return policy.to(cfg.device)


def set_features(cfg: PreTrainedConfig, features: dict, rename_map: dict[str, str] | None = None) -> None:
    """Fill `input_features` and `output_features` of `cfg` from policy features, in their order."""
    names = rename_map or {}
    cfg.output_features = {k: f for k, f in features.items() if f.type is FeatureType.ACTION}
    inputs = {names.get(k, k): f for k, f in features.items() if f.type is not FeatureType.ACTION}
    inputs = inputs if cfg.cameras is None else _with_cameras(inputs, cfg.cameras, names)
    from_checkpoint = cfg.pretrained_path and cfg.image_features and hasattr(cfg, "empty_cameras")
    cfg.input_features = keep_places(cfg, inputs) if from_checkpoint else inputs
    if ACTION not in cfg.output_features:
        raise ValueError(f"There is no feature '{ACTION}' to learn; features found: {', '.join(features)}.")


def _with_cameras(inputs: dict, cameras: list[str], renamed: dict[str, str]) -> dict:
    """`inputs` without the pictures of other cameras than those named (by key, or by its last part, before or after
    renaming)."""
    before = {new: old for old, new in renamed.items()}
    pictures = {
        k: {n for name in (k, before.get(k, k)) for n in (name, name.rpartition(".")[2])}
        for k, f in inputs.items()
        if f.type is FeatureType.VISUAL
    }
    unknown = set(cameras) - set().union(*pictures.values())
    if unknown:
        raise ValueError(f"--policy.cameras names {', '.join(sorted(unknown))}; there are: {', '.join(pictures)}.")
    return {k: f for k, f in inputs.items() if k not in pictures or pictures[k] & set(cameras)}


def make_pre_post_processors(
    policy_cfg: PreTrainedConfig,
    pretrained_path: str | Path | None = None,
    *,
    preprocessor_config_filename: str = f"{POLICY_PREPROCESSOR_DEFAULT_NAME}.json",
    postprocessor_config_filename: str = f"{POLICY_POSTPROCESSOR_DEFAULT_NAME}.json",
    preprocessor_overrides: dict | None = None,
    postprocessor_overrides: dict | None = None,
    dataset_stats: dict | None = None,
    **kwargs,
):
    """Return (preprocessor, postprocessor): loaded from a checkpoint, or built from the configuration and statistics.

    A checkpoint of a legacy layout has no processor files; its processors are built from the statistics inside its
    weights. Overrides are keyed by registered step name; one that fits no step is a KeyError. With `pretrained_path`,
    `dataset_stats` is ignored. Another `vlm_model_name` (of pi0: `tokenizer_name`) than the one saved in the
    checkpoint's tokenizer step replaces its tokenizer. `kwargs`: options of the hub, and `pretrained_revision`.
    """
    given = preprocessor_overrides or {}, postprocessor_overrides or {}
    if pretrained_path is None:
        return _finish(policy_cfg, _override(_build(policy_cfg, dataset_stats), given))
    policy_cfg.pretrained_path = policy_cfg.pretrained_path or str(pretrained_path)  # its tokenizer may lie there
    hub = {"revision": kwargs.get("pretrained_revision"), **{k: v for k, v in kwargs.items() if k in HUB_OPTIONS}}
    if find_file(pretrained_path, preprocessor_config_filename, required=False, **hub) is None:
        built = _build(policy_cfg, _statistics_in_weights(policy_cfg, pretrained_path, hub))
        return _finish(policy_cfg, _override(built, given))
    from lerobot.common.processor import PolicyProcessorPipeline
    from lerobot.common.processor.converters import policy_action_to_transition, transition_to_policy_action
    from lerobot.common.processor.loading import read_pipeline_file

    saved, _ = read_pipeline_file(pretrained_path, preprocessor_config_filename, **hub)
    named = {step.get("registry_name") for step in saved["steps"]}
    device = {"device_processor": {"device": policy_cfg.device}} if "device_processor" in named else {}
    overrides = {**device, **given[0]}
    if tokenizer := _chosen_tokenizer(policy_cfg, saved):
        overrides["tokenizer_processor"] = {**tokenizer, **overrides.get("tokenizer_processor", {})}
    preprocessor = PolicyProcessorPipeline.from_pretrained(
        pretrained_path,
        config_filename=preprocessor_config_filename,
        overrides=overrides,
        **hub,
    )
    postprocessor = PolicyProcessorPipeline.from_pretrained(
        pretrained_path,
        config_filename=postprocessor_config_filename,
        overrides=given[1],
        to_transition=policy_action_to_transition,
        to_output=transition_to_policy_action,
        **hub,
    )
    return _finish(policy_cfg, (preprocessor, postprocessor))


def _finish(cfg: PreTrainedConfig, pipelines: tuple) -> tuple:
    """`pipelines`, the preprocessor of which warns of sentences that the policy was not trained on.

    Where its actions are relative to the state, the postprocessor reads that state.
    """
    from lerobot.common.processor.relative_actions import connect_relative_actions

    connect_relative_actions(*pipelines)
    for step in pipelines[0].steps:
        if hasattr(step, "known_tasks"):
            step.known_tasks = set(getattr(cfg, "training_tasks", ()))
    return pipelines


def _chosen_tokenizer(cfg: PreTrainedConfig, saved: dict) -> dict:
    """What the configuration changes in the tokenizer step of a saved preprocessor, if it names another tokenizer."""
    wanted = getattr(cfg, "vlm_model_name", None) or getattr(cfg, "tokenizer_name", None)
    steps = [s.get("config", {}) for s in saved["steps"] if s.get("registry_name") == "tokenizer_processor"]
    return {"tokenizer_name": wanted} if wanted and any(s.get("tokenizer_name") != wanted for s in steps) else {}


def _override(pipelines: tuple, overrides: tuple[dict, dict]) -> tuple:
    """Rebuild steps of new pipelines with other constructor arguments, by registered name; KeyError for another."""
    from lerobot.common.processor.pipeline import registered_name

    for pipeline, by_name in zip(pipelines, overrides, strict=True):
        available = [registered_name(step) for step in pipeline.steps]
        if unused := sorted(by_name.keys() - set(available)):
            raise KeyError(f"Override keys {unused} do not match any step of this pipeline; available: {available}.")
        for i, step in enumerate(pipeline.steps):
            name = registered_name(step)
            if name in by_name:
                pipeline.steps[i] = type(step)(**{**step.get_config(), **by_name[name]})
                pipeline.steps[i].load_state_dict(step.state_dict())
    return pipelines


def _build(cfg: PreTrainedConfig, stats: dict | None):
    module = importlib.import_module(type(cfg).__module__.replace("configuration_", "processor_"))
    name = module.__name__.rpartition("processor_")[2]
    return getattr(module, f"make_{name}_pre_post_processors")(cfg, stats)


def _statistics_in_weights(cfg: PreTrainedConfig, path: str | Path, hub: dict) -> dict:
    from lerobot.common.processor.migration import statistics_from_legacy_state

    stats, _ = statistics_from_legacy_state(read_state(find_file(path, SAFETENSORS_SINGLE_FILE, **hub)), cfg)
    if not stats:
        raise FileNotFoundError(
            f"'{path}' has neither {POLICY_PREPROCESSOR_DEFAULT_NAME}.json nor statistics inside its weights, so it is "
            "unknown how its inputs are normalized. Copy the processor files of the checkpoint beside its weights."
        )
    logging.info("'%s' keeps its statistics inside the weights; processors are made from them.", path)
    return stats
