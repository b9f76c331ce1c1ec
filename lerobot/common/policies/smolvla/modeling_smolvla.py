"""SmolVLA: flow matching over action chunks, conditioned on cameras, task and state (arXiv 2506.01844)."""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from lerobot.common.constants import (
    ACTION,
    ACTION_IS_PAD,
    FROZEN_CONTEXT,
    FROZEN_MASK,
    FROZEN_PICTURES,
    OBS_LANGUAGE_ATTENTION_MASK,
    OBS_LANGUAGE_TOKENS,
    OBS_STATE,
)
from lerobot.common.policies.cameras import is_empty_camera
from lerobot.common.policies.common.action_queue import ActionQueue
from lerobot.common.policies.common.flow_matching import (
    create_sinusoidal_pos_embedding,
    make_att_2d_masks,
    pad_tensor,
    pad_vector,
    resize_with_pad,
)
from lerobot.common.policies.common.inputs import MissingInputError, require, require_actions
from lerobot.common.policies.common.losses import masked_mean, zero_padding
from lerobot.common.policies.pretrained import PreTrainedPolicy
from lerobot.common.policies.rtc.modeling_rtc import Continuation, assert_no_rtc, sample_delays
from lerobot.common.policies.smolvla.configuration_smolvla import SmolVLAConfig
from lerobot.common.policies.smolvla.flow_model import Context, VLAFlowMatching
from lerobot.common.policies.smolvla.smolvlm import SmolVLMConfig
from lerobot.common.policies.smolvla.vlm_source import TOKENIZER_FOLDER, VLMSource
from lerobot.common.processor import images_to_float
from lerobot.common.utils import aloha
from lerobot.common.utils.aloha import (
    aloha_gripper_from_angular,
    aloha_gripper_from_angular_inv,
    aloha_gripper_to_angular,
    normalize,
    safe_arcsin,
    unnormalize,
)

__all__ = [
    "SmolVLAPolicy",
    "VLAFlowMatching",
    "aloha_gripper_from_angular",
    "aloha_gripper_from_angular_inv",
    "aloha_gripper_to_angular",
    "create_sinusoidal_pos_embedding",
    "make_att_2d_masks",
    "normalize",
    "pad_tensor",
    "pad_vector",
    "resize_with_pad",
    "safe_arcsin",
    "unnormalize",
]


class SmolVLAPolicy(PreTrainedPolicy):
    """SmolVLA behind the interface of every policy.

    checkpoint: where the weights will be loaded from (`from_pretrained` sets it); then nothing is initialized
    and no pretrained vision-language model is fetched. Without it the weights are random, or the
    vision-language model's with `config.load_vlm_weights`.
    """

    config_class = SmolVLAConfig
    name = "smolvla"
    recordable = ("model.sample_actions",)

    def __init__(self, config: SmolVLAConfig, checkpoint: str | Path | None = None, **_kwargs):
        super().__init__(config)
        config.validate_features()
        self.source = VLMSource(config.vlm_model_name, checkpoint, config.vlm_config)
        markers = self.source.image_token_ids() if config.add_image_special_tokens else None
        with torch.device("meta"):  # no default initialization of weights that are about to be written
            self.model = VLAFlowMatching(config, SmolVLMConfig.from_dict(self.source.config()), markers)
        self.model.to_empty(device="cpu")
        if checkpoint is None:
            self.model.init_weights()
            if config.load_vlm_weights:
                self.source.load_weights(self.model.vlm_with_expert.vlm)
        self._queue = ActionQueue(config.n_action_steps)
        self._warned_of_absent = False

    @classmethod
    def from_pretrained(cls, pretrained_name_or_path: str | Path, **kwargs) -> SmolVLAPolicy:
        return super().from_pretrained(pretrained_name_or_path, checkpoint=pretrained_name_or_path, **kwargs)

    @classmethod
    def prepare_from_zero(cls, config: SmolVLAConfig) -> None:
        """Have the vision-language model's weights loaded unless everything is trained: what is frozen is never random.

        Building the policy raises FileNotFoundError with the ways out where those weights cannot be had.
        """
        if not (config.load_vlm_weights or cls.trains_everything(config)):
            logging.info("Parts of SmolVLA are frozen: loading the weights of '%s'.", config.vlm_model_name)
            config.load_vlm_weights = True

    @staticmethod
    def trains_everything(config: SmolVLAConfig) -> bool:
        """Whether no part that matters is frozen, so that random weights are a sensible start."""
        return not config.freeze_vision_encoder and not config.train_expert_only

    def _save_files(self, folder: Path) -> None:
        super()._save_files(folder)
        self.source.save(folder / TOKENIZER_FOLDER)

    def reset(self) -> None:
        """Forget queued actions."""
        self._queue.reset()

    def get_optim_params(self) -> list[nn.Parameter] | list[dict]:
        """All parameters, frozen ones included, so that an optimizer's state fits whatever is frozen.

        One group; two with `optimizer_lr_vision` (the vision tower last, at that rate, and with the `positions` of
        its tensors, so that a run can be resumed with or without it).
        """
        rate = self.config.optimizer_lr_vision
        if rate is None:
            return list(self.parameters())
        everything = list(self.parameters())
        held = {id(p) for p in self.model.vlm_with_expert.vlm.model.vision_model.parameters()}
        positions = [i for i, p in enumerate(everything) if id(p) in held]
        rest = [p for p in everything if id(p) not in held]
        return [{"params": rest}, {"params": [everything[i] for i in positions], "lr": rate, "positions": positions}]

    def default_adapter_targets(self) -> str:
        """Queries and values of the expert, and the five projections beside it: 37 layers at full size."""
        beside = "state_proj|action_in_proj|action_out_proj|action_time_mlp_in|action_time_mlp_out"
        return rf"model\.(vlm_with_expert\.lm_expert\..*\.(q|v)_proj|{beside})"

    def can_train(self, parameter: str) -> bool:
        """Not what the freezing flags run without gradients."""
        return not (self.config.train_expert_only and ".vlm_with_expert.vlm." in parameter)

    def forward(
        self,
        batch: dict[str, Tensor],
        noise: Tensor | None = None,
        time: Tensor | None = None,
        reduction: str = "mean",
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Flow-matching loss of a normalized batch.

        noise (K * B, C, max_action_dim) and time (K * B,), for K = `config.draws_per_sample`, are drawn if
        absent.
        reduction: "mean" (scalar) or "none" (one loss per sample). Only real steps and real action dimensions
        count; with `config.loss_over_padding` everything does, as in LeRobot 0.4.4.
        Returns the loss and {"loss": its mean}; with `loss_over_padding` also LeRobot's `losses_after_*`, its parts.
        """
        actions = self.prepare_action(batch)
        observation = self.prepare_observation(batch)
        given = self._sample_given(actions)
        losses = self.model.forward(*observation, actions, noise, time, self.prepare_context(batch), given)
        width, is_pad = batch[ACTION].shape[-1], batch.get(ACTION_IS_PAD)
        over = self.config.loss_over_padding
        if over:  # LeRobot 0.4.4 looks for a key that no dataset has, and never cuts the padded dimensions
            width, is_pad = None, batch.get("actions_id_pad")
        reduce = partial(masked_mean, width=width, over_padding=over)
        is_pad = torch.zeros_like(actions[..., 0], dtype=torch.bool) if is_pad is None else is_pad
        is_pad = is_pad.repeat(self.config.draws_per_sample, 1)
        is_pad = is_pad if given is None else is_pad | given
        if reduction == "none":
            loss = torch.vmap(reduce)(losses, is_pad).view(-1, len(actions)).mean(0)
        else:
            loss = reduce(losses, is_pad)
        parts = _losses_after(losses.detach(), batch.get("actions_id_pad")) if over else {}
        return loss, {**parts, "loss": loss.detach().mean()}

    def _sample_given(self, actions: Tensor) -> Tensor | None:
        """Which actions of each draw are given rather than predicted, bool `(K * B, C)`; None without that training."""
        longest = self.config.rtc_training_max_delay
        if not (longest and self.training):
            return None
        return sample_delays(self.config.draws_per_sample * len(actions), longest, actions.shape[1], actions.device)

    def supports_rtc(self) -> bool:
        return True

    def noise_shape(self) -> tuple[int, int]:
        return self.config.chunk_size, self.config.max_action_dim

    @torch.no_grad()
    def predict_action_chunk(
        self,
        batch: dict[str, Tensor],
        noise: Tensor | None = None,
        inference_delay: int | None = None,
        prev_chunk_left_over: Tensor | None = None,
        execution_horizon: int | None = None,
        **_kwargs,
    ) -> Tensor:
        """Return the whole normalized chunk `(B, chunk_size, A)`; noise `(B, chunk_size, max_action_dim)`.

        prev_chunk_left_over `(B, N, A)`: unplayed actions that the chunk continues, of which `inference_delay` will
        have been played. They are the chunk's beginning with `rtc_training_max_delay`, else they guide it as
        `config.rtc_config` says.
        """
        self.eval()
        observation, old = self.prepare_observation(batch), prev_chunk_left_over
        if old is not None and self.config.adapt_to_pi_aloha:
            old = aloha.encode_actions_inv(old)
        old = None if old is None else pad_vector(old, self.config.max_action_dim)
        longest = self.config.rtc_training_max_delay
        continued = Continuation(self.rtc_processor, old, inference_delay, execution_horizon, longest)
        actions = continued.finish(self.model.sample_actions(*observation, noise=noise, steer=continued.steer))
        actions = actions[..., : self.config.action_feature.shape[0]]
        return aloha.encode_actions(actions) if self.config.adapt_to_pi_aloha else actions

    def needs_observation(self) -> bool:
        """Whether the next `select_action` looks at its batch: not while planned actions are queued."""
        return self._queue.is_empty

    @torch.no_grad()
    def select_action(self, batch: dict[str, Tensor], noise: Tensor | None = None, **kwargs) -> Tensor:
        """Return the next action `(B, A)`; observations count only when the queue is empty."""
        assert_no_rtc(self.config.rtc_config)
        if self._queue.is_empty:
            self._queue.extend(self.predict_action_chunk(batch, noise, **kwargs))
        return self._queue.pop()

    def prepare_observation(self, batch: dict[str, Tensor]) -> tuple:
        """What the model reads of a preprocessed batch: images, image masks, tokens, token masks, state."""
        if FROZEN_CONTEXT in batch:
            return None, None, None, None, self.prepare_state(batch)
        images, image_masks = self.prepare_images(batch)
        require(self.config, batch, [OBS_LANGUAGE_TOKENS], "The preprocessor makes it from the task.")
        tokens, token_masks = batch[OBS_LANGUAGE_TOKENS], batch[OBS_LANGUAGE_ATTENTION_MASK]
        return images, image_masks, tokens, token_masks, self.prepare_state(batch)

    def prepare_context(self, batch: dict[str, Tensor]) -> Context | None:
        """The kept keys and values of pictures and task, where the batch has them instead of pictures."""
        if FROZEN_CONTEXT not in batch:
            return None
        keys_values = [(layer[:, 0], layer[:, 1]) for layer in batch[FROZEN_CONTEXT].unbind(1)]
        return Context(keys_values, batch[FROZEN_MASK])

    def frozen_feature_modes(self) -> tuple[str, ...]:
        """Both, if the vision-language model is frozen; pictures of different sizes only have a prefix."""
        if not self.config.train_expert_only:  # the connector is trained, at least
            return ()
        sizes = {shape[1:] for shape in self.config.image_shapes.values()}
        same = self.config.resize_imgs_with_padding is not None or len(sizes) == 1
        return ("prefix", "vision") if same else ("prefix",)

    @torch.no_grad()
    def frozen_features(self, batch: dict[str, Tensor], mode: str) -> dict[str, Tensor]:
        """Keys and values `(B, layers, 2, P, kv_heads, head_dim)` and their mask; or picture tokens.

        Picture tokens: `(B, cameras, N, D)` of the cameras that are present, and the mask `(B, cameras)` of all.
        """
        images, image_masks, tokens, token_masks, _ = self.prepare_observation(batch)
        if mode == "vision":
            pictures = torch.stack([e for e in self.model.embed_images(images) if e is not None], 1)
            return {FROZEN_PICTURES: pictures, FROZEN_MASK: torch.stack(image_masks, 1)}
        context = self.model.encode_context(images, image_masks, tokens, token_masks)
        layers = torch.stack([torch.stack(pair, 1) for pair in context.keys_values], 1)
        layers = layers * context.real[:, None, None, :, None, None]  # padding is never read; equal frames, equal bytes
        return {FROZEN_CONTEXT: layers, FROZEN_MASK: context.real}

    def frozen_inputs(self, mode: str) -> tuple[dict[str, Tensor], dict]:
        """Weights of the vision tower and connector, or of the whole vision-language model; and sizes."""
        vlm = self.model.vlm_with_expert.vlm.model
        used = vlm if mode == "prefix" else torch.nn.ModuleList([vlm.vision_model, vlm.connector])
        names = ("resize_imgs_with_padding", "empty_cameras", "add_image_special_tokens", "num_vlm_layers")
        settings = {name: getattr(self.config, name) for name in names}
        return used.state_dict(), {**settings, "cameras": list(self.config.image_features)}

    def prepare_images(self, batch: dict[str, Tensor]) -> tuple[list[Tensor | None], list[Tensor]]:
        """Pictures `(B, 3, H, W)` scaled to [-1, 1] in feature order, and per camera a bool mask `(B,)`.

        Where the batch has kept picture tokens, these `(B, N, D)` in their place.

        Absent cameras, at most `empty_cameras` of them, stand last as None with a mask that is all false; further
        ones are left out, with one warning. Raises ValueError if no camera of the configuration is in the batch, or
        one has another shape than (B, 3, H, W) or (B, T, 3, H, W).
        """
        if FROZEN_PICTURES in batch:
            kept, masks = list(batch[FROZEN_PICTURES].unbind(1)), list(batch[FROZEN_MASK].unbind(1))
            return kept + [None] * (len(masks) - len(kept)), masks
        names = list(self.config.image_features)
        pictures = images_to_float({n: batch[n] for n in names if n in batch})
        if not pictures:
            raise MissingInputError(
                "All image features are missing from the batch. The policy reads "
                f"{', '.join(names) or 'no camera'}; the batch has {', '.join(batch)}."
            )
        self._warn_of_absent([n for n in names if n not in batch])
        images: list[Tensor | None] = [self._prepare_image(name, picture) for name, picture in pictures.items()]
        count, device = images[0].shape[0], images[0].device
        masks = [
            batch[f"{n}_padding_mask"].bool()
            if f"{n}_padding_mask" in batch
            else torch.ones(count, dtype=torch.bool, device=device)
            for n in pictures
        ]
        absent = min(len(names) - len(pictures), self.config.empty_cameras)
        masks += [torch.zeros(count, dtype=torch.bool, device=device)] * absent
        return images + [None] * absent, masks

    def _warn_of_absent(self, absent: list[str]) -> None:
        left_out = [n for n in absent if not is_empty_camera(n)][self.config.empty_cameras :]
        if left_out and not self._warned_of_absent:
            self._warned_of_absent = True
            logging.warning(
                "The batch lacks %s, which this policy was trained with; it goes on without. Check the cameras' names "
                "(--rename_map), or set --policy.empty_cameras=%d if that is meant.",
                ", ".join(left_out),
                self.config.empty_cameras + len(left_out),
            )

    def _prepare_image(self, name: str, image: Tensor) -> Tensor:
        image = image[:, -1] if image.ndim == 5 else image
        if image.ndim != 4 or image.shape[1] != 3:
            raise ValueError(
                f"Pictures of '{name}' have shape {tuple(image.shape)}; expected (batch, 3, height, width), RGB in "
                "[0, 1]. A single frame gets its batch axis from the preprocessor."
            )
        if self.config.resize_imgs_with_padding is not None:
            image = resize_with_pad(image, *self.config.resize_imgs_with_padding, pad_value=0)
        return image * 2.0 - 1.0

    def prepare_state(self, batch: dict[str, Tensor]) -> Tensor:
        """The latest state, zero-padded: `(B, max_state_dim)`."""
        require(self.config, batch, [OBS_STATE], "Rename the dataset's column with --rename_map.")
        state = batch[OBS_STATE]
        state = state[:, -1] if state.ndim > 2 else state
        # Looking waits for a GPU: there training finds it out by its loss, at the next log line.
        looked_at = state.device.type == "cpu" or not torch.is_grad_enabled()
        if looked_at and not torch.isfinite(state).all():
            wrong = (~torch.isfinite(state)).nonzero()[:, -1].unique().tolist()
            raise ValueError(
                f"'{OBS_STATE}' is not finite in components {wrong}: look at the dataset's column (or the robot's "
                "reading), and at the statistics that normalize it."
            )
        if self.config.adapt_to_pi_aloha:
            state = aloha.decode_state(state)
        return pad_vector(state, self.config.max_state_dim)

    def prepare_action(self, batch: dict[str, Tensor]) -> Tensor:
        """The recorded chunk, zero-padded: `(B, C, max_action_dim)`."""
        require_actions(self.config, batch, self.config.chunk_size, "chunk_size")
        actions = batch[ACTION]
        if self.config.adapt_to_pi_aloha:
            actions = aloha.encode_actions_inv(actions)
        return pad_vector(actions, self.config.max_action_dim)


def _losses_after(losses: Tensor, is_pad: Tensor | None) -> dict[str, Tensor]:
    """Means of elementwise losses (B, C, max_action_dim) at the stages that LeRobot 0.4.4 logs; nothing is cut."""
    stages = {"losses_after_forward": losses.mean()}
    if is_pad is not None:
        stages["losses_after_in_ep_bound"] = zero_padding(losses, is_pad.repeat(len(losses) // len(is_pad), 1)).mean()
    return {**stages, "losses_after_rm_padding": [*stages.values()][-1]}
