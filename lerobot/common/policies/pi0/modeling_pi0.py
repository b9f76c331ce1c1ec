"""pi0: flow matching over action chunks beside a vision-language model (arXiv 2410.24164)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
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
from lerobot.common.policies.common.action_queue import ActionQueue
from lerobot.common.policies.common.flow_matching import (
    attention_bias,
    create_sinusoidal_pos_embedding,
    integrate,
    make_att_2d_masks,
    noisy_actions,
    pad_vector,
    resize_with_pad,
    sample_noise,
    sample_time,
)
from lerobot.common.policies.common.inputs import MissingInputError, require, require_actions
from lerobot.common.policies.common.losses import masked_mean
from lerobot.common.policies.common.recorded import tensor_tree
from lerobot.common.policies.pi0.configuration_pi0 import PI0Config
from lerobot.common.policies.pi0.paligemma_with_expert import KeysValues, PaliGemmaWithExpert
from lerobot.common.policies.pi0.tokenizer_source import save_tokenizer
from lerobot.common.policies.pretrained import PreTrainedPolicy
from lerobot.common.policies.rtc.modeling_rtc import Continuation, assert_no_rtc
from lerobot.common.processor import images_to_float

# Names in older weights files -> names here; the first that fits counts.
LM, PALI = "paligemma_with_expert.paligemma.language_model.", "paligemma_with_expert.paligemma."
RENAMES = (
    (f"{LM}model.", f"{PALI}model.language_model."),
    (f"{LM}lm_head.", f"{PALI}lm_head."),
    (f"{PALI}vision_tower.", f"{PALI}model.vision_tower."),
    (f"{PALI}multi_modal_projector.", f"{PALI}model.multi_modal_projector."),
    ("time_mlp_", "action_time_mlp_"),
)
PARTS = (
    "paligemma_with_expert.",
    "state_proj.",
    "action_in_proj.",
    "action_out_proj.",
    "action_time_mlp_",
    "time_mlp_",
)
HEAD, EMBEDDING = f"model.{PALI}lm_head.weight", f"model.{PALI}model.language_model.embed_tokens.weight"
UNUSED = "model.paligemma_with_expert.gemma_expert.lm_head.weight"


class PI0Policy(PreTrainedPolicy):
    """pi0 behind the interface of every policy.

    checkpoint: where the weights will be loaded from (`from_pretrained` sets it); then nothing is initialized.
    """

    config_class = PI0Config
    name = "pi0"
    recordable = ("model.sample_actions",)

    def __init__(self, config: PI0Config, checkpoint: str | Path | None = None, **_kwargs):
        super().__init__(config)
        config.validate_features()
        self.checkpoint = checkpoint
        with torch.device("meta"):  # no default initialization of weights that are about to be written
            self.model = PI0FlowMatching(config)
        self.model.to_empty(device="cpu")
        self.model.paligemma_with_expert.paligemma.tie_weights()
        if checkpoint is None:
            self.model.init_weights()
        self._queue = ActionQueue(config.n_action_steps)

    @classmethod
    def from_pretrained(cls, pretrained_name_or_path: str | Path, **kwargs) -> PI0Policy:
        return super().from_pretrained(pretrained_name_or_path, checkpoint=pretrained_name_or_path, **kwargs)

    @classmethod
    def prepare_from_zero(cls, config: PI0Config) -> None:
        """Raise ValueError where a part would stay frozen at random values."""
        frozen = [f for f in ("train_expert_only", "freeze_vision_encoder") if getattr(config, f)]
        if frozen:
            raise ValueError(
                f"{frozen[0]}=true keeps weights that would be random: start from a trained policy "
                "(--policy.path=lerobot/pi0_base), train the small one from zero (--preset=pi0_mini), or train "
                "everything (--policy.train_expert_only=false --policy.freeze_vision_encoder=false)."
            )

    def _save_files(self, folder: Path) -> None:
        super()._save_files(folder)
        save_tokenizer(self.config.tokenizer_name, self.checkpoint, folder)

    def rename_keys(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """The published names of every release -> those of LeRobot 0.4.4, the tied embedding under both its names."""
        state = {_renamed(k): v for k, v in super().rename_keys(state).items()}
        for name, other in ((HEAD, EMBEDDING), (EMBEDDING, HEAD)):
            if other in state:
                state.setdefault(name, state[other])
        return state

    def load_weights(self, path: str | Path, strict: bool = False) -> None:
        nn.init.zeros_(self.model.paligemma_with_expert.gemma_expert.lm_head.weight)
        super().load_weights(path, strict)

    def may_be_missing(self, key: str) -> bool:
        return key == UNUSED

    def reset(self) -> None:
        """Forget queued actions."""
        self._queue.reset()

    def get_optim_params(self) -> list[nn.Parameter]:
        """All parameters, frozen ones included, so that an optimizer's state fits whatever is frozen."""
        return list(self.parameters())

    def forward(
        self, batch: dict[str, Tensor], noise: Tensor | None = None, time: Tensor | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Flow-matching loss of a normalized batch: mean over real steps and real action dimensions.

        noise (K * B, C, max_action_dim) and time (K * B,), for K = `config.draws_per_sample`, are drawn if absent.
        With `config.loss_over_padding` padded steps count, as in LeRobot 0.4.4.
        """
        require_actions(self.config, batch, self.config.chunk_size, "chunk_size")
        actions = pad_vector(batch[ACTION], self.config.max_action_dim)
        losses = self.model.forward(self.encode(batch), actions, noise, time)
        is_pad = None if self.config.loss_over_padding else batch.get(ACTION_IS_PAD)
        is_pad = None if is_pad is None else is_pad.repeat(self.config.draws_per_sample, 1)
        loss = masked_mean(losses, is_pad, width=batch[ACTION].shape[-1])
        return loss, {"loss": loss.detach()}

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

        prev_chunk_left_over `(B, N, A)`: unplayed actions that guide the chunk as `config.rtc_config` says;
        `inference_delay` of them will have been played.
        """
        self.eval()
        old = prev_chunk_left_over
        continued = Continuation(self.rtc_processor, old, inference_delay, execution_horizon)
        actions = self.model.sample_actions(self.encode(batch), noise, continued.steer)
        return actions[..., : self.config.action_feature.shape[0]]

    def supports_rtc(self) -> bool:
        return True

    def noise_shape(self) -> tuple[int, int]:
        return self.config.chunk_size, self.config.max_action_dim

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

    def encode(self, batch: dict[str, Tensor]) -> Context:
        """What the expert reads of a preprocessed batch, from stored features where the batch has them."""
        require(self.config, batch, [OBS_STATE], "Rename the dataset's column with --rename_map.")
        state = pad_vector(batch[OBS_STATE], self.config.max_state_dim)
        if FROZEN_CONTEXT in batch:
            layers = [(layer[:, 0], layer[:, 1]) for layer in batch[FROZEN_CONTEXT].unbind(1)]
            return self.model.context(layers, batch[FROZEN_MASK], state)
        return self.model.context(*self._prefix(batch), state)

    def _prefix(self, batch: dict[str, Tensor]) -> tuple[KeysValues, Tensor]:
        require(self.config, batch, [OBS_LANGUAGE_TOKENS], "The preprocessor makes it from the task.")
        tokens, token_mask = batch[OBS_LANGUAGE_TOKENS], batch[OBS_LANGUAGE_ATTENTION_MASK]
        embedded = self.model.embed_prefix(self._image_features(batch), tokens)
        pictures = token_mask.new_ones(len(tokens), embedded.shape[1] - tokens.shape[1])
        return self.model.encode_prefix(embedded, torch.cat([pictures, token_mask], 1))

    def _image_features(self, batch: dict[str, Tensor]) -> list[Tensor]:
        """Per present camera what `freeze_vision_encoder` leaves constant, `(B, N, vision width)`.

        Nothing attends the picture of an absent camera and it moves no position, so none is built.
        """
        if FROZEN_PICTURES in batch:
            return list(batch[FROZEN_PICTURES].unbind(1))
        names = self.config.image_features
        pictures = images_to_float({n: batch[n] for n in names if n in batch})
        if not pictures:
            raise MissingInputError(
                "All image features are missing from the batch. The policy reads "
                f"{', '.join(names)}; the batch has {', '.join(batch)}."
            )
        return self.model.embed_images([self.prepare_image(picture) for picture in pictures.values()])

    def prepare_image(self, image: Tensor) -> Tensor:
        """A picture `(B, 3, H, W)` or `(B, H, W, 3)` in [0, 1] -> `(B, 3, *image_resolution)` in [-1, 1]."""
        image = image if image.shape[1] == 3 else image.movedim(-1, 1)
        if self.config.image_resolution is not None:
            height, width = self.config.image_resolution
            bars = -1.0 if self.config.letterbox == "centre_0.3.4" else 0.0
            image = resize_with_pad(image, width, height, bars, centred=self.config.letterbox != "top_left")
        return image * 2.0 - 1.0

    def frozen_feature_modes(self) -> tuple[str, ...]:
        """Keys and values with `train_expert_only`; the vision tower's output, of cameras of one size, also with
        `freeze_vision_encoder`."""
        config = self.config
        same = config.image_resolution is not None or len(set(config.image_shapes.values())) == 1
        vision = ("vision",) if same and (config.train_expert_only or config.freeze_vision_encoder) else ()
        return ("prefix", *vision) if config.train_expert_only else vision

    @torch.no_grad()
    def frozen_features(self, batch: dict[str, Tensor], mode: str) -> dict[str, Tensor]:
        """Keys and values `(B, layers, 2, P, kv_heads, head_dim)` and their mask `(B, P)`; or the vision tower's output
        `(B, cameras, N, vision width)`. Raises ValueError if that part is trained."""
        if mode not in self.frozen_feature_modes():
            raise ValueError(
                f"Features '{mode}' change while pi0 trains; constant are: "
                f"{', '.join(self.frozen_feature_modes()) or 'none'}. Set --policy.train_expert_only=true (or, for "
                "'vision', --policy.freeze_vision_encoder=true)."
            )
        if mode == "vision":
            return {FROZEN_PICTURES: torch.stack(self._image_features(batch), 1)}
        keys_values, real = self._prefix(batch)
        layers = torch.stack([torch.stack(pair, 1) for pair in keys_values], 1)
        return {FROZEN_CONTEXT: layers * real[:, None, None, :, None, None], FROZEN_MASK: real}

    def frozen_inputs(self, mode: str) -> tuple[dict[str, Tensor], dict]:
        """Weights of the vision tower, or of all of PaliGemma; and settings of the pictures and of the precision."""
        paligemma = self.model.paligemma_with_expert.paligemma.model
        used = paligemma if mode == "prefix" else paligemma.vision_tower
        names = ("image_resolution", "letterbox", "dtype", "legacy_rounding")
        settings = {name: getattr(self.config, name) for name in names}
        return used.state_dict(), {**settings, "cameras": list(self.config.image_features)}


def _renamed(key: str) -> str:
    name = key.removeprefix("model.")
    if not name.startswith(PARTS):
        return key
    for old, new in RENAMES:
        if name.startswith(old):
            name = new + name.removeprefix(old)
            break
    return f"model.{name}"


@tensor_tree
@dataclass
class Context:
    """What the expert needs of an observation.

    prefix: keys and values per layer. bias `(B, 1, S, P + S)`, additive: state and action tokens over prefix and
    these tokens. positions `(B, S)` of these tokens. state `(B, max_state_dim)`.
    """

    prefix: KeysValues
    bias: Tensor
    positions: Tensor
    state: Tensor

    def repeat(self, times: int) -> Context:
        """The same observations `times` over, along the batch axis."""
        if times == 1:
            return self
        prefix = [(k.repeat(times, 1, 1, 1), v.repeat(times, 1, 1, 1)) for k, v in self.prefix]
        bias, positions = self.bias.repeat(times, 1, 1, 1), self.positions.repeat(times, 1)
        return Context(prefix, bias, positions, self.state.repeat(times, 1))


class PI0FlowMatching(nn.Module):
    """Velocity of a noisy action chunk, given pictures, task and state."""

    def __init__(self, config: PI0Config):
        super().__init__()
        self.config = config
        self.paligemma_with_expert = PaliGemmaWithExpert(config)
        width = self.paligemma_with_expert.sizes.expert.hidden_size
        self.state_proj = nn.Linear(config.max_state_dim, width)
        self.action_in_proj = nn.Linear(config.max_action_dim, width)
        self.action_out_proj = nn.Linear(width, config.max_action_dim)
        self.action_time_mlp_in = nn.Linear(2 * width, width)
        self.action_time_mlp_out = nn.Linear(width, width)
        if not config.train_state_proj:
            self.state_proj.requires_grad_(False)
        if config.compile_model:
            torch.set_float32_matmul_precision("high")
            self.forward = torch.compile(self.forward, mode=config.compile_mode)
            self.sample_actions = torch.compile(self.sample_actions, mode=config.compile_mode)

    def init_weights(self) -> None:
        """Random weights for everything."""
        self.paligemma_with_expert.init_weights()
        for layer in self.children():
            if isinstance(layer, nn.Linear):
                layer.reset_parameters()

    def forward(self, context: Context, actions: Tensor, noise=None, time=None) -> Tensor:
        """Squared error of the velocity, `(K * B, C, max_action_dim)` for K draws per sample.

        actions `(B, C, max_action_dim)`; noise like the result and time `(K * B,)` are drawn if absent.
        """
        c = self.config
        actions = actions.repeat(c.draws_per_sample, 1, 1)
        noise = sample_noise(actions.shape, actions.device) if noise is None else noise
        if time is None:
            shape = c.time_sampling_beta_alpha, c.time_sampling_beta_beta
            time = sample_time(len(actions), actions.device, *shape, c.time_sampling_scale, c.time_sampling_offset)
        x_t, target = noisy_actions(actions, noise, time)
        velocity = self.velocity(x_t, time, context.repeat(c.draws_per_sample))
        return F.mse_loss(velocity, target, reduction="none")

    def sample_actions(self, context: Context, noise: Tensor | None = None, steer=None) -> Tensor:
        """Denoise a chunk `(B, chunk_size, max_action_dim)`; noise, of that shape, is drawn if absent.

        steer: makes another velocity of this one.
        """
        shape = (len(context.state), self.config.chunk_size, self.config.max_action_dim)
        noise = sample_noise(shape, context.state.device) if noise is None else noise
        steps, legacy = self.config.num_inference_steps, self.config.legacy_rounding

        def velocity(x: Tensor, t: Tensor) -> Tensor:
            return self.velocity(x, t, context)

        return integrate(steer(velocity) if steer else velocity, noise, steps, summed_times=legacy)

    def embed_images(self, images: list[Tensor]) -> list[Tensor]:
        """Features `(B, N, vision width)` of pictures `(B, 3, H, W)`; cameras of one size are encoded together."""
        if len({image.shape for image in images}) == 1:
            return list(self.paligemma_with_expert.embed_images(torch.cat(images)).chunk(len(images)))
        return [self.paligemma_with_expert.embed_images(image) for image in images]

    def embed_prefix(self, image_features: list[Tensor], tokens: Tensor) -> Tensor:
        """Embeddings `(B, P, D)` of pictures (features per camera) and task (ids `(B, L)`)."""
        pieces = [self.paligemma_with_expert.project(features) for features in image_features]
        return torch.cat([*pieces, self.paligemma_with_expert.embed_language(tokens)], 1)

    def encode_prefix(self, embedded: Tensor, real: Tensor) -> tuple[KeysValues, Tensor]:
        """Keys and values per layer of a prefix `(B, P, D)` that attends itself, and `real`, bool `(B, P)`."""
        bias = attention_bias(make_att_2d_masks(real, torch.zeros_like(real[:1], dtype=torch.long)))
        return self.paligemma_with_expert.prefix_keys_values(embedded, real.cumsum(1) - 1, bias), real

    def context(self, prefix: KeysValues, real: Tensor, state: Tensor) -> Context:
        """The prefix with the masks and positions of what follows it: the state token, then action tokens.

        The state sees the prefix and itself, action tokens see everything; positions count real tokens.
        """
        pad = F.pad(real, (0, 1 + self.config.chunk_size), value=True)
        starts = F.pad(torch.zeros_like(real[:1], dtype=torch.long), (0, 2), value=1)
        starts = F.pad(starts, (0, self.config.chunk_size - 1))
        suffix = slice(real.shape[1], None)
        bias = attention_bias(make_att_2d_masks(pad, starts)[:, suffix])
        return Context(prefix, bias, (pad.cumsum(1) - 1)[:, suffix], state)

    def velocity(self, x_t: Tensor, time: Tensor, context: Context) -> Tensor:
        """Predicted noise minus actions `(B, C, max_action_dim)` at x_t (same shape) and time `(B,)`."""
        suffix = self.embed_suffix(context.state, x_t, time)
        hidden = self.paligemma_with_expert.expert_hidden(suffix, context.prefix, context.positions, context.bias)
        return self.action_out_proj(hidden[:, 1:].float())

    def embed_suffix(self, state: Tensor, x_t: Tensor, time: Tensor) -> Tensor:
        """State token and action tokens `(B, 1 + C, expert width)`; actions and time go through a small MLP."""
        token, action = self.state_proj(state)[:, None], self.action_in_proj(x_t)
        period = self.config.min_period, self.config.max_period
        when = create_sinusoidal_pos_embedding(time, action.shape[-1], *period).to(action.dtype)
        if self.config.legacy_rounding:
            when, token = when.bfloat16().to(action.dtype), token.bfloat16().to(token.dtype)
        both = torch.cat([action, when[:, None].expand_as(action)], dim=2)
        return torch.cat([token, self.action_time_mlp_out(F.silu(self.action_time_mlp_in(both)))], 1)
