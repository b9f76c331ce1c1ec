"""Low-rank adapters (LoRA and relatives) on a policy, through `peft`; files as peft writes them.

Adapted layers replace the policy's own in place, so the policy stays the same object. A checkpoint then holds
`adapter_config.json` (with the name of the base checkpoint) and `adapter_model.safetensors` beside `config.json`.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from lerobot.common.utils.hub import find_file
from lerobot.common.utils.io_utils import read_json, write_json
from lerobot.configs.default import PeftConfig

if TYPE_CHECKING:
    from lerobot.common.policies.pretrained import PreTrainedPolicy

ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PREFIX = "base_model.model."  # of every name in an adapter's file


def has_adapter(policy: PreTrainedPolicy) -> bool:
    """Whether adapters are attached."""
    return hasattr(policy, "adapter_handle")


def add_adapter(policy: PreTrainedPolicy, settings: PeftConfig | Any) -> None:
    """Freeze a loaded policy and attach fresh adapters, the only part that is trained from then on.

    settings: ours, or a configuration object of peft (LoraConfig and the like). Raises ImportError without peft and
    ValueError for settings that do not fit the policy.
    """
    config = policy.config
    if not config.pretrained_path:
        raise ValueError("--peft.* adapts a trained policy: it needs --policy.path=CHECKPOINT.")
    if has_adapter(policy):
        raise ValueError(
            f"{config.pretrained_path} has an adapter already. Leave --peft.* out to train it further, or merge it "
            f"first: python -m lerobot.common.policies.adapters {config.pretrained_path} MERGED"
        )
    if not getattr(config, "load_vlm_weights", True):
        logging.warning("The checkpoint's vision-language model was built with load_vlm_weights=false.")
    chosen = _peft_settings(policy, settings) if isinstance(settings, PeftConfig) else settings
    base = Path(config.pretrained_path).expanduser()
    try:
        handle = _peft().get_peft_model(policy, chosen)
    except ValueError as e:  # what peft says when nothing matches
        raise ValueError(f"--peft.target_modules={chosen.target_modules}: {e}") from e
    chosen.base_model_name_or_path = str(base.resolve() if base.is_dir() else config.pretrained_path)
    policy.adapter_handle = (handle,)  # in a tuple: it contains the policy, so it must not become a part of it
    config.use_peft = True
    _refuse_untrained(policy)
    count = sum(p.numel() for p in policy.parameters() if p.requires_grad)
    logging.info("Adapter: %s, %d parameters trained.", chosen.peft_type.value, count)


def _peft():
    try:
        import peft
    except ImportError as e:
        raise ImportError('Adapters need peft: pip install -e ".[peft]"') from e
    return peft


def _peft_settings(policy: PreTrainedPolicy, settings: PeftConfig):
    """The configuration object of the method, with what it knows of `settings`."""
    peft = _peft()
    kinds = {kind.value: cls for kind, cls in peft.mapping.PEFT_TYPE_TO_CONFIG_MAPPING.items()}
    method = settings.method_type.upper()
    if method not in kinds:
        raise ValueError(f"--peft.method_type={settings.method_type}: expected one of {', '.join(sorted(kinds))}.")
    targets = settings.target_modules or policy.default_adapter_targets()
    if isinstance(targets, str) and targets.startswith("["):
        targets = json.loads(targets)
    if targets is None:
        raise ValueError(f"Policy '{policy.name}' has no default for adapters: set --peft.target_modules.")
    fields = {f.name for f in dataclasses.fields(kinds[method])}
    values = {"target_modules": targets, "modules_to_save": settings.full_training_modules, "r": settings.r}
    if settings.lora_alpha is not None:
        values["lora_alpha"] = settings.lora_alpha
    if settings.init_type is not None:
        name = {"LORA": "init_lora_weights", "MISS": "init_weights"}.get(method)
        if name is None:
            raise ValueError(f"--peft.init_type={settings.init_type} has no meaning for method {method}.")
        values[name] = {"true": True, "false": False}.get(settings.init_type.lower(), settings.init_type)
    return kinds[method](**{k: v for k, v in values.items() if k in fields})


def _refuse_untrained(policy: PreTrainedPolicy) -> None:
    lost = [n for n, p in policy.named_parameters() if p.requires_grad and not policy.can_train(n)]
    if lost:
        raise ValueError(
            f"--peft.target_modules reaches {len(lost)} tensors in a part that runs without gradients, for example "
            f"{lost[0]}. Set --policy.train_expert_only=false (and --policy.freeze_vision_encoder=false), or leave "
            "that part out."
        )


def adapter_weights(policy: PreTrainedPolicy, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Of a policy's state dict the tensors that its adapter consists of, under the names of an adapter's file."""
    (handle,) = policy.adapter_handle
    named = {f"{PREFIX}{k}": v for k, v in weights.items()}
    return {k: v.contiguous() for k, v in _peft().get_peft_model_state_dict(handle, state_dict=named).items()}


def save_adapter_config(policy: PreTrainedPolicy, folder: Path) -> None:
    """Write adapter_config.json."""
    (handle,) = policy.adapter_handle
    settings = handle.peft_config["default"].to_dict()
    plain = {k: sorted(v) if isinstance(v, set) else v for k, v in settings.items()}
    write_json({**plain, "inference_mode": True}, folder / ADAPTER_CONFIG)


def load_with_adapter(policy_class, name_or_path: str | Path, config, **options) -> PreTrainedPolicy:
    """The base policy that an adapter's checkpoint names, with the adapter attached and trainable.

    `config` is the one beside the adapter. Raises FileNotFoundError where the base cannot be had.
    """
    hub = {k: v for k, v in options.items() if k != "strict"}
    file = find_file(name_or_path, ADAPTER_CONFIG, **hub)
    base = read_json(file)["base_model_name_or_path"]
    config.use_peft = False  # for the base
    try:
        policy = policy_class.from_pretrained(base, config=config, **{**options, "revision": None})
    except FileNotFoundError as e:
        raise FileNotFoundError(
            f"The adapter '{name_or_path}' belongs to the policy '{base}', which is not there: {e} If it was moved, "
            f"change base_model_name_or_path in {file}."
        ) from e
    finally:
        config.use_peft = True
    weights = find_file(name_or_path, ADAPTER_WEIGHTS, **hub)
    handle = _peft().PeftModel.from_pretrained(policy, str(weights.parent), is_trainable=True)
    policy.adapter_handle = (handle,)
    return policy.to(config.device).eval()


def merge_adapter(policy: PreTrainedPolicy) -> None:
    """Add the adapters to the weights they adapt; the policy is then an ordinary one."""
    (handle,) = policy.adapter_handle
    handle.merge_and_unload()
    for name in ("adapter_handle", "peft_config"):
        if hasattr(policy, name):
            delattr(policy, name)
    policy.config.use_peft = False


def export_merged(checkpoint: str | Path, folder: str | Path) -> None:
    """Write the checkpoint of an adapter again as that of an ordinary policy, with its processors."""
    from lerobot.common.policies.factory import get_policy_class
    from lerobot.configs.policies import PreTrainedConfig

    config = PreTrainedConfig.from_pretrained(checkpoint)
    if not config.use_peft:
        raise ValueError(f"'{checkpoint}' has no adapter (use_peft is false in its config.json).")
    policy = get_policy_class(config.type).from_pretrained(checkpoint, config=config)
    merge_adapter(policy)
    policy.save_pretrained(folder)
    for file in Path(checkpoint).glob("policy_*processor*"):
        shutil.copyfile(file, Path(folder) / file.name)
    logging.info("Merged into %s", folder)


def main() -> None:
    """python -m lerobot.common.policies.adapters CHECKPOINT FOLDER"""
    import argparse

    parser = argparse.ArgumentParser(description=export_merged.__doc__)
    parser.add_argument("checkpoint", help="folder with adapter_config.json")
    parser.add_argument("folder", help="where the merged checkpoint is written")
    args = parser.parse_args()
    export_merged(args.checkpoint, args.folder)


if __name__ == "__main__":
    main()
