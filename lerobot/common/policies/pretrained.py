"""The base of every policy: a torch module that is saved to and loaded from a checkpoint folder."""

from __future__ import annotations

import abc
import logging
from pathlib import Path
from typing import Any, ClassVar, TypedDict

from huggingface_hub import ModelCard
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file, save_model
from torch import Tensor, nn

from lerobot.common.constants import ACTION_IS_PAD, SAFETENSORS_SINGLE_FILE
from lerobot.common.policies.adapters import (
    ADAPTER_WEIGHTS,
    adapter_weights,
    add_adapter,
    has_adapter,
    load_with_adapter,
    save_adapter_config,
)
from lerobot.common.policies.common.losses import STEPS
from lerobot.common.policies.model_card import make_model_card, push_model
from lerobot.common.utils.hub import HubMixin, find_file
from lerobot.configs.default import PeftConfig
from lerobot.configs.policies import PreTrainedConfig


class ActionSelectKwargs(TypedDict, total=False):
    """Keyword arguments that policies drawing noise take in `select_action` and `predict_action_chunk`."""

    noise: Tensor | None


class PreTrainedPolicy(nn.Module, HubMixin, abc.ABC):
    """A policy: batch in, loss or actions out, both in normalized units (processors normalize outside).

    Subclasses set `config_class` and `name`. Statistics that a legacy checkpoint carries inside its weights are not
    part of the module: loading puts them into `legacy_stats`, from which the processors are made.
    """

    config_class: ClassVar[type[PreTrainedConfig]]
    name: ClassVar[str]
    # methods (`model.sample_actions`) from tensors to a chunk that never wait for a GPU, so that it can record them
    recordable: ClassVar[tuple[str, ...]] = ()
    draws_layers: ClassVar[bool] = False  # whether chance decides which layers a training step runs

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        missing = [a for a in ("config_class", "name") if not getattr(cls, a, None)]
        if missing:
            raise TypeError(f"Class {cls.__name__} must define {' and '.join(missing)}.")

    def __init__(self, config: PreTrainedConfig, *_args, **_kwargs):
        super().__init__()
        self.require_config(config)
        self.config = config
        self.legacy_stats: dict[str, dict[str, Tensor]] = {}

    @classmethod
    def require_config(cls, config: Any) -> None:
        """ValueError unless `config` is one of this policy."""
        if not isinstance(config, cls.config_class):
            raise ValueError(
                f"{cls.__name__} needs a policy configuration (a {cls.config_class.__name__}), got "
                f"{type(config).__name__}; to load a checkpoint of any policy use "
                "get_policy_class(config.type).from_pretrained(FOLDER, config=config)."
            )

    @abc.abstractmethod
    def get_optim_params(self):
        """Parameters, or parameter groups, for the optimizer."""

    @abc.abstractmethod
    def reset(self) -> None:
        """Forget queued actions; called at the start of every episode."""

    @abc.abstractmethod
    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict | None]:
        """Return the training loss and a dict of numbers to log."""

    @abc.abstractmethod
    def predict_action_chunk(self, batch: dict[str, Tensor], **kwargs) -> Tensor:
        """Return the whole chunk `(B, T, A)`; the action queue is neither used nor changed."""

    @abc.abstractmethod
    def select_action(self, batch: dict[str, Tensor], **kwargs) -> Tensor:
        """Return the next action `(B, A)`, planning a new chunk when the queue is empty."""

    def step_masks(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """The padding masks over which `forward` averages, by the names that it gives `masked_mean`.

        Training divides a batch into parts by them: a part counts by its valid steps.
        """
        return {STEPS: batch[ACTION_IS_PAD]} if ACTION_IS_PAD in batch else {}

    def supports_rtc(self) -> bool:
        """Whether `predict_action_chunk` takes `prev_chunk_left_over`, to continue a chunk that is being played."""
        return False

    @property
    def rtc_processor(self):
        """The `RTCProcessor` that guides chunks as `config.rtc_config` says at present; None without that field."""
        from lerobot.common.policies.rtc.modeling_rtc import RTCProcessor

        wanted, made = getattr(self.config, "rtc_config", None), self.__dict__.get("_rtc_processor")
        if wanted is None:
            return None
        if made is None or made.rtc_config is not wanted:
            made = self._rtc_processor = RTCProcessor(wanted)
        return made

    def noise_shape(self) -> tuple[int, int] | None:
        """(T, D) of the `noise` that `predict_action_chunk` takes for one sample, T a step per action in their order;
        None for a policy that starts from no noise.
        """
        return None

    def frozen_feature_modes(self) -> tuple[str, ...]:
        """What is a constant of each frame under the freezing flags, most of it first: of "prefix" and "vision".

        "vision" is what the vision network makes of the pictures; "prefix" all that the trained part reads of
        pictures and task. Empty where nothing can be kept.
        """
        return ()

    def frozen_features(self, batch: dict[str, Tensor], mode: str) -> dict[str, Tensor]:
        """The constants of a preprocessed batch, `{"frozen.<name>": (B, ...)}`, in the dtype they are computed in.

        `forward` takes them from its batch in place of the pictures. Sizes that depend on the longest task of the
        batch may be padded with zeros.
        """
        raise NotImplementedError(f"Policy '{self.name}' keeps no features of mode '{mode}'.")

    def frozen_inputs(self, mode: str) -> tuple[dict[str, Tensor], dict]:
        """What `frozen_features` depends on beside the batch: weights by name, and settings that JSON can hold."""
        raise NotImplementedError(f"Policy '{self.name}' keeps no features of mode '{mode}'.")

    def _save_pretrained(self, folder: Path) -> None:
        self._save_files(folder)
        if has_adapter(self):
            save_file(adapter_weights(self, self.state_dict()), folder / ADAPTER_WEIGHTS)
        else:
            save_model(getattr(self, "module", self), str(folder / SAFETENSORS_SINGLE_FILE))

    def _save_files(self, folder: Path) -> None:
        """Write what stands beside the weights; a background save writes the weights from a copy."""
        self.config._save_pretrained(folder)
        if has_adapter(self):
            save_adapter_config(self, folder)

    def default_adapter_targets(self) -> str | None:
        """A regular expression for the layers that adapters are put on; None where the user must say."""
        return None

    def can_train(self, parameter: str) -> bool:
        """Whether gradients reach this parameter under the configuration's freezing flags."""
        return True

    def wrap_with_peft(self, peft_config: Any = None, peft_cli_overrides: dict[str, Any] | None = None):
        """Freeze this loaded policy, put adapters on its layers (see `add_adapter`) and return it.

        peft_config: a configuration of peft, else one is made of `peft_cli_overrides`, values of `--peft.*` by name.
        """
        given = {k: v for k, v in (peft_cli_overrides or {}).items() if v is not None}
        if peft_config is not None and given:
            raise ValueError(f"wrap_with_peft: peft_config is complete by itself; leave {', '.join(given)} out.")
        add_adapter(self, peft_config if peft_config is not None else PeftConfig(**given))
        return self

    def generate_model_card(
        self, dataset_repo_id: str, model_type: str, license: str | None, tags: list[str] | None
    ) -> ModelCard:
        """The page that this policy has on the hub."""
        return make_model_card(dataset_repo_id, model_type, license, tags, self.config.repo_id)

    def push_model_to_hub(self, cfg, peft_model: Any = None) -> str:
        """Upload this policy, adapters included, with the training configuration `cfg`; see `push_model`."""
        return push_model(self, cfg)

    @classmethod
    def from_pretrained(
        cls,
        pretrained_name_or_path: str | Path,
        *,
        config: PreTrainedConfig | None = None,
        strict: bool = False,
        **kwargs,
    ) -> PreTrainedPolicy:
        """Load a checkpoint from a folder, the offline cache or the hub, in eval mode on `config.device`.

        Weights that the policy needs and the file lacks are an error, never left at random values. Unknown tensors
        are named in one warning (an error with `strict`). Raises FileNotFoundError and ValueError.
        """
        from lerobot.common.utils.hub import HUB_OPTIONS

        hub = {k: kwargs.pop(k) for k in (*HUB_OPTIONS, "resume_download") if k in kwargs}
        if config is None:
            config = PreTrainedConfig.from_pretrained(pretrained_name_or_path, **hub)
        cls.require_config(config)
        if config.use_peft:
            return load_with_adapter(cls, pretrained_name_or_path, config, strict=strict, **hub)
        weights = find_file(pretrained_name_or_path, SAFETENSORS_SINGLE_FILE, **hub)
        built_from = cls.config_for_loading(config)
        policy = cls(built_from, **kwargs)
        for module in policy.modules():  # one configuration for the policy and its parts, as when it is built anew
            if getattr(module, "config", None) is built_from:
                module.config = config
        policy.load_weights(weights, strict=strict)
        return policy.to(config.device).eval()

    @classmethod
    def prepare_from_zero(cls, config: PreTrainedConfig) -> None:
        """Complete the configuration of a policy that is trained without a checkpoint; by default nothing."""
        return None

    @classmethod
    def config_for_loading(cls, config: PreTrainedConfig) -> PreTrainedConfig:
        """The configuration to build from when weights follow; overridden where building would fetch others first."""
        return config

    def load_weights(self, path: str | Path, strict: bool = False) -> None:
        """Copy a safetensors file into this module.

        Handles markers of compiled models (`_orig_mod.`), tensors that safetensors dropped because they shared memory,
        and the statistics of legacy checkpoints. ValueError lists missing (with `strict` also unexpected) keys.
        """
        from lerobot.common.processor.migration import statistics_from_legacy_state

        state = self.rename_keys(read_state(path))
        self.legacy_stats, state = statistics_from_legacy_state(state, self.config)
        expected = self.state_dict()
        _raise_on_shapes(path, expected, state)
        missing, unexpected = self.load_state_dict(state, strict=False)
        missing = [k for k in missing if not self.may_be_missing(k)]
        if missing:
            raise ValueError(
                f"{path} lacks {len(missing)} of {len(expected)} tensors of policy '{self.name}': "
                f"{_some(missing)}. It was made for another architecture: check config.json beside it"
                f"{f'; it has unknown ones: {_some(unexpected)}' if unexpected else ''}."
            )
        if unexpected:
            message = f"{path} holds {len(unexpected)} tensors unknown to policy '{self.name}': {_some(unexpected)}"
            if strict:
                raise ValueError(message)
            logging.warning("%s; they are ignored.", message)

    def rename_keys(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Map the names of a weights file to those of this module; overridden where older layouts exist."""
        return {k.replace("_orig_mod.", ""): v for k, v in state.items()}

    def may_be_missing(self, key: str) -> bool:
        """Whether a tensor may be absent from a checkpoint (for example a table that is computed)."""
        return False


def read_state(path: str | Path) -> dict[str, Tensor]:
    """Read a safetensors file, restoring names that were dropped because their memory was shared."""
    try:
        with safe_open(str(path), framework="pt", device="cpu") as f:
            state = {k: f.get_tensor(k) for k in f.keys()}  # noqa: SIM118  not a dict
            dropped = f.metadata() or {}
    except SafetensorError as e:
        raise ValueError(f"{path} is truncated or not a safetensors file ({e}); copy the checkpoint again.") from e
    for name, kept in dropped.items():
        if kept in state and name not in state:
            state[name] = state[kept]
    return state


def _raise_on_shapes(path, expected: dict[str, Tensor], state: dict[str, Tensor]) -> None:
    wrong = [
        f"{k}: file {tuple(v.shape)}, policy {tuple(expected[k].shape)}"
        for k, v in state.items()
        if k in expected and v.shape != expected[k].shape
    ]
    if wrong:
        raise ValueError(
            f"{path} has {len(wrong)} tensors of another shape: {_some(wrong)}. The configuration (flags --policy.*, "
            "or the features of the dataset) differs from the one this checkpoint was trained with."
        )


def _some(names, most: int = 8) -> str:
    names = list(names)
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def count_parameters(module: nn.Module, trainable: bool = False) -> int:
    """Number of parameters, or of those that are trained."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad or not trainable)
