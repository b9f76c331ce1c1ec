"""SmolVLA's network: what is read of an observation, once, and the velocity of a noisy chunk, once per Euler step."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lerobot.common.policies.common.attention import in_dtype_of
from lerobot.common.policies.common.flow_matching import (
    attention_bias,
    create_sinusoidal_pos_embedding,
    integrate,
    make_att_2d_masks,
    noisy_actions,
    sample_noise,
    sample_time,
)
from lerobot.common.policies.smolvla.configuration_smolvla import SmolVLAConfig
from lerobot.common.policies.smolvla.smolvlm import SmolVLMConfig
from lerobot.common.policies.smolvla.smolvlm_with_expert import KeysValues, SmolVLMWithExpertModel, freeze


@dataclass
class Context:
    """Keys and values of pictures and task, which nothing trained has touched; real: bool `(B, P)`, which count."""

    keys_values: KeysValues
    real: Tensor


@dataclass
class Prefix:
    """What the expert needs of an observation: per layer what it attends, and who may attend whom.

    bias: `(B, 1, C, P + C)`, additive, action tokens over prefix and action tokens. positions: `(B, C)` of
    the action tokens.
    """

    context: KeysValues
    bias: Tensor
    positions: Tensor

    def repeat(self, times: int) -> Prefix:
        """The same observations `times` over, along the batch axis."""
        if times == 1:
            return self
        context = [(k.repeat(times, 1, 1, 1), v.repeat(times, 1, 1, 1)) for k, v in self.context]
        return Prefix(context, self.bias.repeat(times, 1, 1, 1), self.positions.repeat(times, 1))


class VLAFlowMatching(nn.Module):
    """Velocity of a noisy action chunk, given pictures, task and state.

    vlm_config: of the vision-language model. markers: ids of the two special tokens around pictures, None to
    leave them out.
    """

    def __init__(self, config: SmolVLAConfig, vlm_config: SmolVLMConfig, markers: tuple[int, int] | None = None):
        super().__init__()
        self.config = config
        self.markers = markers
        self.vlm_with_expert = SmolVLMWithExpertModel(vlm_config, config)
        width = self.vlm_with_expert.expert_config.hidden_size
        self.state_proj = nn.Linear(config.max_state_dim, vlm_config.text.hidden_size)
        self.action_in_proj = nn.Linear(config.max_action_dim, width)
        self.action_out_proj = nn.Linear(width, config.max_action_dim)
        self.action_time_mlp_in = nn.Linear(width * 2, width)
        self.action_time_mlp_out = nn.Linear(width, width)
        if not config.train_state_proj:
            freeze(self, "state_proj.")
        if config.compile_model:
            torch.set_float32_matmul_precision("high")
            self.forward = torch.compile(self.forward, mode=config.compile_mode)
            self.sample_actions = torch.compile(self.sample_actions, mode=config.compile_mode)

    def init_weights(self) -> None:
        """Random weights for everything."""
        self.vlm_with_expert.init_weights()
        for layer in self.children():
            if isinstance(layer, nn.Linear):
                layer.reset_parameters()

    def forward(
        self, images, image_masks, tokens, token_masks, state, actions, noise=None, time=None, context=None, given=None
    ) -> Tensor:
        """Squared error of the velocity, `(K * B, C, max_action_dim)` for K draws per sample.

        Arguments as for `sample_actions`; actions `(B, C, max_action_dim)`, noise like the result,
        time `(K * B,)`; given: bool `(K * B, C)`, actions that the model sees without noise.
        """
        draws = self.config.draws_per_sample
        actions = actions.repeat(draws, 1, 1)
        noise = sample_noise(actions.shape, actions.device) if noise is None else noise
        time = self.draw_time(actions.shape[0], actions.device) if time is None else time
        time = time if given is None else time[:, None].masked_fill(given, 0.0)
        x_t, target = noisy_actions(actions, noise, time)
        prefix = self.encode_prefix(images, image_masks, tokens, token_masks, state, context)
        return F.mse_loss(self.velocity(x_t, time, prefix.repeat(draws)), target, reduction="none")

    def draw_time(self, count: int, device: torch.device) -> Tensor:
        """Denoising times `(count,)` to train at: Beta(1.5, 1), and 1 for `pure_noise_share` of them."""
        time = sample_time(count, device)
        if self.config.pure_noise_share:
            pure = torch.rand(count) < self.config.pure_noise_share
            time = time.masked_fill(pure.to(device, non_blocking=True), 1.0)
        return time

    def sample_actions(self, images, image_masks, tokens, token_masks, state, noise=None, steer=None) -> Tensor:
        """Denoise a chunk `(B, C, max_action_dim)`.

        images: per camera `(B, 3, H, W)` in [-1, 1], or None where it is absent; image_masks: per camera bool
        `(B,)`. tokens `(B, L)`, token_masks bool `(B, L)`; state `(B, max_state_dim)`; noise like the result,
        drawn if absent. steer: makes another velocity of this one.
        """
        shape = (state.shape[0], self.config.chunk_size, self.config.max_action_dim)
        noise = sample_noise(shape, state.device) if noise is None else noise
        prefix = self.encode_prefix(images, image_masks, tokens, token_masks, state)

        def velocity(x: Tensor, t: Tensor) -> Tensor:
            return self.velocity(x, t, prefix)

        return integrate(steer(velocity) if steer else velocity, noise, self.config.num_steps)

    def encode_prefix(self, images, image_masks, tokens, token_masks, state, context: Context | None = None) -> Prefix:
        """Run pictures, task and state through the vision-language model, once per observation.

        context: what `encode_context` made of pictures and task, which are then not read.
        """
        model, state_token = self.vlm_with_expert, self.state_proj(state)[:, None]
        if context is None and self.config.train_expert_only and torch.is_grad_enabled():
            # Pictures and task attend no trained token: without a graph, only the state carries gradients.
            context = self.encode_context(images, image_masks, tokens, token_masks)
        if context is None:
            embedded, real = self.embed_context(images, image_masks, tokens, token_masks)
        else:
            real = context.real
        mask, positions = self.layout(real)
        bias, length = attention_bias(mask), real.shape[1]
        chunk = slice(length + 1, None)
        if context is None:
            tokens, where, past = torch.cat([embedded, state_token], 1), slice(0, length + 1), None
        else:
            tokens, where, past = state_token, slice(length, length + 1), context.keys_values
        keys_values = model.prefix_keys_values(tokens, positions[:, where], bias[:, :, where, : length + 1], past)
        return Prefix(model.expert_context(keys_values), bias[:, :, chunk], positions[:, chunk])

    @torch.no_grad()
    def encode_context(self, images, image_masks, tokens, token_masks) -> Context:
        """Run pictures and task alone through the vision-language model; they attend nothing else."""
        embedded, real = self.embed_context(images, image_masks, tokens, token_masks)
        mask, positions = self.layout(real)
        length = real.shape[1]
        bias = attention_bias(mask[:, :length, :length])
        embedded = in_dtype_of(self.state_proj, embedded)
        return Context(self.vlm_with_expert.prefix_keys_values(embedded, positions[:, :length], bias), real)

    def embed_context(self, images, image_masks, tokens, token_masks) -> tuple[Tensor, Tensor]:
        """Embeddings `(B, P, D)` of pictures and task, and which of them are real, bool `(B, P)`.

        Pictures of absent cameras are left out (nothing would attend them); their markers are not.
        """
        text = self.vlm_with_expert.vlm.model.text_model
        pieces, masks = [], []
        for picture, mask in zip(self.embed_images(images), image_masks, strict=True):
            for piece, valid in self._with_markers(picture, mask):
                pieces.append(piece)
                masks.append(valid[:, None].expand(-1, piece.shape[1]))
        language = text.embed_tokens(tokens)
        pieces.append(language * language.shape[-1] ** 0.5)
        masks.append(token_masks)
        return torch.cat(pieces, 1), torch.cat(masks, 1)

    def _with_markers(self, picture: Tensor | None, mask: Tensor):
        """(embedding, validity) of a picture's tokens, and of the special tokens around it if wanted."""
        always = torch.ones_like(mask)
        if self.markers is not None:
            fake, first = self.markers
            yield self._marker([fake, first], mask), always
        if picture is not None:
            yield picture, mask
        if self.markers is not None:
            yield self._marker([fake], mask), always

    def _marker(self, ids: list[int], mask: Tensor) -> Tensor:
        table = self.vlm_with_expert.vlm.model.text_model.embed_tokens.weight
        embedded = torch.stack([table[i] for i in ids])  # a tensor of ids would have to be copied to the device
        return embedded.expand(mask.shape[0], -1, -1)

    def embed_images(self, images: list[Tensor | None]) -> list[Tensor | None]:
        """Scaled picture tokens `(B, N, D)` per camera; cameras of one size are embedded together.

        What has three axes already is such tokens.
        """
        vlm = self.vlm_with_expert.vlm
        present = [image for image in images if image is not None]
        if present[0].ndim == 3:
            return images
        if len({image.shape for image in present}) == 1:
            embedded = vlm.embed_images(torch.cat(present)).chunk(len(present))
        else:
            embedded = [vlm.embed_images(image) for image in present]
        # The factor takes the precision of the embedding: sqrt(960) is 31 in bfloat16.
        scale = torch.tensor(embedded[0].shape[-1] ** 0.5, dtype=embedded[0].dtype)
        scaled = iter([e * scale for e in embedded])
        return [None if image is None else next(scaled) for image in images]

    def layout(self, real: Tensor) -> tuple[Tensor, Tensor]:
        """Mask `(B, N, N)` and positions `(B, N)` of [pictures and task, state, action tokens].

        Pictures and task see each other; the state sees them and itself; action tokens see these and earlier
        ones.
        """
        later = 1 + self.config.chunk_size
        pad = F.pad(real, (0, later), value=True)
        starts = F.pad(torch.zeros_like(real[:1], dtype=torch.long), (0, later), value=1)
        return make_att_2d_masks(pad, starts), pad.cumsum(dim=1) - 1

    def velocity(self, x_t: Tensor, time: Tensor, prefix: Prefix) -> Tensor:
        """Predicted noise minus actions `(B, C, max_action_dim)` at x_t (same shape) and time `(B,)` or `(B, C)`."""
        suffix = self.embed_suffix(x_t, time)
        hidden = self.vlm_with_expert.expert_hidden(suffix, prefix.context, prefix.positions, prefix.bias)
        return self.action_out_proj(hidden.float())

    def embed_suffix(self, x_t: Tensor, time: Tensor) -> Tensor:
        """Action tokens `(B, C, expert width)`: noisy actions and time through a small MLP."""
        action = self.action_in_proj(x_t)
        period = self.config.min_period, self.config.max_period
        when = create_sinusoidal_pos_embedding(time.flatten(), action.shape[-1], *period).to(action.dtype)
        both = torch.cat([action, when.view(len(action), -1, action.shape[-1]).expand_as(action)], dim=2)
        return self.action_time_mlp_out(F.silu(self.action_time_mlp_in(both)))
