"""ACT: a transformer that predicts a chunk of actions from one observation (Zhao et al. 2023)."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lerobot.common.constants import ACTION, ACTION_IS_PAD, OBS_ENV_STATE, OBS_STATE
from lerobot.common.policies.act.configuration_act import ACTConfig
from lerobot.common.policies.common.action_queue import ActionQueue
from lerobot.common.policies.common.attention import MultiheadAttention
from lerobot.common.policies.common.inputs import require_actions, require_inputs
from lerobot.common.policies.common.losses import masked_mean, zero_padding
from lerobot.common.policies.common.positions import (
    SinusoidalPositionEmbedding2d as ACTSinusoidalPositionEmbedding2d,
)
from lerobot.common.policies.common.positions import create_sinusoidal_pos_embedding
from lerobot.common.policies.common.resnet import ResNet, fast_layout
from lerobot.common.policies.common.resnet_weights import load_resnet_weights
from lerobot.common.policies.common.temporal_ensemble import TemporalEnsembler as ACTTemporalEnsembler
from lerobot.common.policies.pretrained import PreTrainedPolicy
from lerobot.common.policies.rtc.modeling_rtc import known_prefix, sample_delays
from lerobot.common.policies.utils import eval_mode

BACKBONE_PREFIX = "model.backbone"


class ACTPolicy(PreTrainedPolicy):
    """ACT as a policy: loss for training, queued or ensembled actions for control."""

    config_class = ACTConfig
    name = "act"
    recordable = ("model.forward",)

    def __init__(self, config: ACTConfig, **kwargs):
        super().__init__(config)
        config.validate_features()
        self.model = self._build_model()
        self.reset()

    def _build_model(self) -> nn.Module:
        return ACT(self.config)

    @classmethod
    def config_for_loading(cls, config: ACTConfig) -> ACTConfig:
        """Without pretrained backbone weights: the checkpoint brings its own."""
        return dataclasses.replace(config, pretrained_backbone_weights=None)

    def may_be_missing(self, key: str) -> bool:
        """What a checkpoint lacks that was not trained to continue chunks; it starts at zero."""
        return ".decoder_prefix_proj." in key

    def get_optim_params(self) -> list[dict]:
        """Two groups, the second for the backbone with its own learning rate; it may be empty."""
        trainable = [(n, p) for n, p in self.named_parameters() if p.requires_grad]
        return [
            {"params": [p for n, p in trainable if not n.startswith(BACKBONE_PREFIX)]},
            {
                "params": [p for n, p in trainable if n.startswith(BACKBONE_PREFIX)],
                "lr": self.config.optimizer_lr_backbone,
            },
        ]

    def reset(self) -> None:
        """Forget queued actions and earlier predictions; raises if n_action_steps no longer fits."""
        self.config.check_steps()
        if self.config.temporal_ensemble_coeff is None:
            self._action_queue = ActionQueue(self.config.n_action_steps)
        else:
            self.temporal_ensembler = ACTTemporalEnsembler(self.config.temporal_ensemble_coeff, self.config.chunk_size)

    def needs_observation(self) -> bool:
        """Whether the next `select_action` looks at its batch: not while planned actions are queued."""
        return self.config.temporal_ensemble_coeff is not None or self._action_queue.is_empty

    @torch.no_grad()
    def select_action(self, batch: dict[str, Tensor], **kwargs) -> Tensor:
        """Next action (B, A), normalized. While actions are queued the observation is not looked at."""
        if self.config.temporal_ensemble_coeff is not None:
            return self.temporal_ensembler.update(self.predict_action_chunk(batch))
        if self._action_queue.is_empty:
            self._action_queue.extend(self.predict_action_chunk(batch))
        return self._action_queue.pop()

    def supports_rtc(self) -> bool:
        return self.config.rtc_training_max_delay > 0

    @torch.no_grad()
    def predict_action_chunk(
        self,
        batch: dict[str, Tensor],
        inference_delay: int | None = None,
        prev_chunk_left_over: Tensor | None = None,
        **kwargs,
    ) -> Tensor:
        """Chunk (B, C, A), normalized, of the mean style (latent 0); queue and ensemble stay as they are.

        With `rtc_training_max_delay` it begins with the first `inference_delay` of `prev_chunk_left_over` (B, N, A).
        """
        prefix = known_prefix(prev_chunk_left_over, inference_delay, self.config.rtc_training_max_delay)
        with eval_mode(self):
            if prefix is None:
                return self.model(batch)[0].float()  # autocast's half precision would round joint angles afterwards
            known, missing = prefix.shape[1], self.config.chunk_size - prefix.shape[1]
            given = (torch.arange(self.config.chunk_size, device=prefix.device) < known)[None]
            actions = self.model(batch, F.pad(prefix, (0, 0, 0, missing)), given)[0]
            return torch.cat([prefix.to(actions).expand(len(actions), -1, -1), actions[:, known:]], 1).float()

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """L1 over the valid steps of the chunk, plus kl_weight * KL of the latent while training.

        With `rtc_training_max_delay`, training gives the first actions of each sample; they are no part of the loss.
        """
        require_actions(self.config, batch, self.config.chunk_size, "chunk_size")
        is_pad, given = batch.get(ACTION_IS_PAD), None
        actions = zero_padding(batch[ACTION], is_pad)
        if self.training and self.config.rtc_training_max_delay:
            given = sample_delays(len(actions), self.config.rtc_training_max_delay, actions.shape[1], actions.device)
        predicted, (mean, log_variance) = self.model(batch, actions, given)
        if given is not None:
            is_pad = given if is_pad is None else is_pad | given
        error = F.l1_loss(predicted, actions, reduction="none")
        loss = l1 = masked_mean(error, is_pad, over_padding=self.config.loss_over_padding)
        info = {"l1_loss": l1.detach()}
        if mean is not None:
            kl = (-0.5 * (1 + log_variance - mean.square() - log_variance.exp())).sum(-1).mean()
            info["kld_loss"] = kl.detach()
            loss = l1 + self.config.kl_weight * kl
        return loss, info


class ACT(nn.Module):
    """The network: observation tokens -> encoder -> decoder over learned queries -> actions.

    Letters: B batch, A action, S state, C chunk, D width, L latent, N tokens. Tokens stand before the batch,
    (N, B, D), as the original has them, so that dropout draws the same numbers.
    """

    def __init__(self, config: ACTConfig):
        super().__init__()
        self.config = config
        width, action = config.dim_model, config.action_feature.shape[0]
        state, env = config.robot_state_feature, config.env_state_feature
        if config.use_vae:
            self._build_vae_encoder(width, action)
        if config.image_features:
            self.backbone = self._build_backbone()
        self.encoder = ACTEncoder(config)
        self.decoder = ACTDecoder(config)
        if state:
            self.encoder_robot_state_input_proj = nn.Linear(state.shape[0], width)
        if env:
            self.encoder_env_state_input_proj = nn.Linear(env.shape[0], width)
        self.encoder_latent_input_proj = nn.Linear(config.latent_dim, width)
        if config.image_features:
            self.encoder_img_feat_input_proj = nn.Conv2d(self.backbone.out_channels, width, kernel_size=1)
            self._build_image_positions(width)
        self.encoder_1d_feature_pos_embed = nn.Embedding(1 + bool(state) + bool(env), width)
        self.decoder_pos_embed = nn.Embedding(config.chunk_size, width)
        if config.rtc_training_max_delay:
            self.decoder_prefix_proj = nn.Linear(action, width)
        self.action_head = nn.Linear(width, action)
        self._initialize()

    def _build_vae_encoder(self, width: int, action: int) -> None:
        config, state = self.config, self.config.robot_state_feature
        self.vae_encoder = ACTEncoder(config, is_vae_encoder=True)
        self.vae_encoder_cls_embed = nn.Embedding(1, width)
        if state:
            self.vae_encoder_robot_state_input_proj = nn.Linear(state.shape[0], width)
        self.vae_encoder_action_input_proj = nn.Linear(action, width)
        self.vae_encoder_latent_output_proj = nn.Linear(width, 2 * config.latent_dim)
        tokens = 1 + bool(state) + config.chunk_size
        self.register_buffer("vae_encoder_pos_enc", create_sinusoidal_pos_embedding(tokens, width)[None])

    def _build_backbone(self) -> nn.Module:
        config = self.config
        backbone = ResNet(
            config.vision_backbone,
            norm=config.backbone_norm,
            width=config.backbone_width,
            layers=config.backbone_layers,
            dilate=bool(config.replace_final_stride_with_dilation),
        )
        if config.pretrained_backbone_weights:
            load_resnet_weights(backbone, config.pretrained_backbone_weights)
        return backbone

    def _build_image_positions(self, width: int) -> None:
        self.encoder_cam_feat_pos_embed = ACTSinusoidalPositionEmbedding2d(width // 2)

    def _initialize(self) -> None:
        for p in itertools.chain(self.encoder.parameters(), self.decoder.parameters()):
            if p.dim() > 1:
                nn.init.xavier_uniform_(p)
        if self.config.rtc_training_max_delay:  # a trained policy that learns to continue begins as what it was
            nn.init.zeros_(self.decoder_prefix_proj.weight)
            nn.init.zeros_(self.decoder_prefix_proj.bias)

    def forward(
        self, batch: dict[str, Tensor], actions: Tensor | None = None, given: Tensor | None = None
    ) -> tuple[Tensor, tuple[Tensor | None, Tensor | None]]:
        """Actions (B, C, A); mean and log variance (B, L) of the latent, None outside training.

        Where `given`, bool (B, C), is true, `actions` (B, C, A) are known.
        """
        batch = self._current_frame(batch)
        mean = log_variance = None
        if self.config.use_vae and self.training:
            mean, log_variance = self._encode_style(batch)
            latent = mean + (log_variance / 2).exp() * torch.randn_like(mean)
        else:
            size, device = self._batch_size_and_device(batch)
            latent = torch.zeros(size, self.config.latent_dim, device=device)
        tokens, positions = self._observation_tokens(batch, latent)
        memory = self.encoder(tokens, positions)
        queries = self.decoder_pos_embed.weight[:, None]
        start = queries.new_zeros(self.config.chunk_size, tokens.shape[1], self.config.dim_model)
        if given is not None:
            known = self.decoder_prefix_proj(actions) * given[..., None]
            start = start + known.transpose(0, 1)
        decoded = self.decoder(start, memory, positions, queries)
        return self.action_head(decoded.transpose(0, 1)), (mean, log_variance)

    def _current_frame(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """The batch with inputs (B, 1, ...) as (B, ...)."""
        require_inputs(self.config, batch, given=self._given(batch))
        batch = dict(batch)
        for key, feature in self.config.input_features.items():
            if key in batch and batch[key].dim() == len(feature.shape) + 2:
                batch[key] = batch[key].squeeze(1)
        return batch

    def _given(self, batch: dict[str, Tensor]) -> list[str]:
        """Cameras whose features the batch has instead of their pictures."""
        return []

    def _batch_size_and_device(self, batch: dict[str, Tensor]) -> tuple[int, torch.device]:
        first = batch[next(iter(self.config.image_features), OBS_ENV_STATE)]
        return first.shape[0], first.device

    def _encode_style(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Mean and log variance (B, L) of the latent, read from the demonstrated chunk."""
        if ACTION not in batch:
            raise AssertionError(f"'{ACTION}' must be in the batch when ACT with use_vae=true is in training mode.")
        is_pad = batch.get(ACTION_IS_PAD)
        actions = self.vae_encoder_action_input_proj(zero_padding(batch[ACTION], is_pad))
        tokens = [self.vae_encoder_cls_embed.weight.to(actions.dtype).expand(len(actions), 1, -1)]
        if self.config.robot_state_feature:
            tokens.append(self.vae_encoder_robot_state_input_proj(batch[OBS_STATE])[:, None])
        tokens = torch.cat([*tokens, actions], dim=1).transpose(0, 1)
        if is_pad is not None:
            is_pad = F.pad(is_pad, (len(tokens) - is_pad.shape[1], 0), value=False)
        encoded = self.vae_encoder(tokens, self.vae_encoder_pos_enc.transpose(0, 1), is_pad)
        mean, log_variance = self.vae_encoder_latent_output_proj(encoded[0]).float().chunk(2, dim=-1)
        return mean, log_variance

    def _observation_tokens(self, batch: dict[str, Tensor], latent: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens (N, B, D) and positions (N, 1, D): latent, state, environment state, then each camera."""
        tokens = [self.encoder_latent_input_proj(latent)]
        if self.config.robot_state_feature:
            tokens.append(self.encoder_robot_state_input_proj(batch[OBS_STATE]))
        if self.config.env_state_feature:
            tokens.append(self.encoder_env_state_input_proj(batch[OBS_ENV_STATE]))
        tokens, positions = [torch.stack(tokens)], [self.encoder_1d_feature_pos_embed.weight[:, None]]
        if self.config.image_features:
            for token, position in self._image_tokens(batch):
                tokens.append(token)
                positions.append(position)
        return torch.cat(tokens), torch.cat(positions)

    def _image_tokens(self, batch: dict[str, Tensor]) -> list[tuple[Tensor, Tensor]]:
        """Per camera the tokens (H'W', B, D) and positions (H'W', 1, D) of its map, row by row."""
        return [
            (
                self.encoder_img_feat_input_proj(features).flatten(2).permute(2, 0, 1),
                self.encoder_cam_feat_pos_embed(features).flatten(2).permute(2, 0, 1),
            )
            for features in self._image_features([batch[k] for k in self.config.image_features])
        ]

    def _image_features(self, images: list[Tensor]) -> list[Tensor]:
        """A map (B, Cb, H', W') per camera; cameras of equal size share one call of the backbone."""
        features: list[Tensor | None] = [None] * len(images)
        for shape in dict.fromkeys(image.shape for image in images):
            same = [i for i, image in enumerate(images) if image.shape == shape]
            pictures = torch.cat([images[i] for i in same])
            maps = self.backbone(fast_layout(pictures, self.config.backbone_width))
            for i, one in zip(same, maps.chunk(len(same)), strict=True):
                features[i] = one
        return features


class ACTEncoder(nn.Module):
    """Stack of self-attention layers; with pre_norm a last norm follows."""

    def __init__(self, config: ACTConfig, is_vae_encoder: bool = False):
        super().__init__()
        depth = config.n_vae_encoder_layers if is_vae_encoder else config.n_encoder_layers
        self.layers = nn.ModuleList(ACTEncoderLayer(config) for _ in range(depth))
        self.norm = nn.LayerNorm(config.dim_model) if config.pre_norm else nn.Identity()

    def forward(self, x: Tensor, pos_embed: Tensor, key_padding_mask: Tensor | None = None) -> Tensor:
        """x (N, B, D), pos_embed (N, 1, D), key_padding_mask (B, N) true where ignored -> (N, B, D)."""
        for layer in self.layers:
            x = layer(x, pos_embed, key_padding_mask)
        return self.norm(x)


class ACTEncoderLayer(nn.Module):
    """Self-attention and feed-forward; positions are added to queries and keys of every layer."""

    def __init__(self, config: ACTConfig):
        super().__init__()
        self.self_attn = MultiheadAttention(config.dim_model, config.n_heads, dropout=config.dropout)
        self.linear1 = nn.Linear(config.dim_model, config.dim_feedforward)
        self.dropout = nn.Dropout(config.dropout)
        self.linear2 = nn.Linear(config.dim_feedforward, config.dim_model)
        self.norm1, self.norm2 = nn.LayerNorm(config.dim_model), nn.LayerNorm(config.dim_model)
        self.dropout1, self.dropout2 = nn.Dropout(config.dropout), nn.Dropout(config.dropout)
        self.activation = get_activation_fn(config.feedforward_activation)
        self.pre_norm = config.pre_norm

    def forward(self, x: Tensor, pos_embed: Tensor, key_padding_mask: Tensor | None = None) -> Tensor:
        h = self.norm1(x) if self.pre_norm else x
        q = h + pos_embed
        x = x + self.dropout1(self.self_attn(q, q, h, key_padding_mask))
        x = x if self.pre_norm else self.norm1(x)
        h = self.norm2(x) if self.pre_norm else x
        x = x + self.dropout2(self.linear2(self.dropout(self.activation(self.linear1(h)))))
        return x if self.pre_norm else self.norm2(x)


class ACTDecoder(nn.Module):
    """Stack of decoder layers and a last norm."""

    def __init__(self, config: ACTConfig):
        super().__init__()
        self.layers = nn.ModuleList(ACTDecoderLayer(config) for _ in range(config.n_decoder_layers))
        self.norm = nn.LayerNorm(config.dim_model)

    def forward(self, x: Tensor, encoder_out: Tensor, encoder_pos_embed: Tensor, decoder_pos_embed: Tensor) -> Tensor:
        """x (C, B, D), encoder_out (N, B, D), positions (N, 1, D) and (C, 1, D) -> (C, B, D)."""
        for layer in self.layers:
            x = layer(x, encoder_out, encoder_pos_embed, decoder_pos_embed)
        return self.norm(x)


class ACTDecoderLayer(nn.Module):
    """Self-attention among the queries, cross-attention to the encoded observation, feed-forward."""

    def __init__(self, config: ACTConfig):
        super().__init__()
        self.self_attn = MultiheadAttention(config.dim_model, config.n_heads, dropout=config.dropout)
        self.multihead_attn = MultiheadAttention(config.dim_model, config.n_heads, dropout=config.dropout)
        self.linear1 = nn.Linear(config.dim_model, config.dim_feedforward)
        self.dropout = nn.Dropout(config.dropout)
        self.linear2 = nn.Linear(config.dim_feedforward, config.dim_model)
        self.norm1, self.norm2 = nn.LayerNorm(config.dim_model), nn.LayerNorm(config.dim_model)
        self.norm3 = nn.LayerNorm(config.dim_model)
        self.dropout1, self.dropout2 = nn.Dropout(config.dropout), nn.Dropout(config.dropout)
        self.dropout3 = nn.Dropout(config.dropout)
        self.activation = get_activation_fn(config.feedforward_activation)
        self.pre_norm = config.pre_norm

    def forward(self, x: Tensor, encoder_out: Tensor, encoder_pos_embed: Tensor, decoder_pos_embed: Tensor) -> Tensor:
        h = self.norm1(x) if self.pre_norm else x
        q = h + decoder_pos_embed
        x = x + self.dropout1(self.self_attn(q, q, h))
        x = x if self.pre_norm else self.norm1(x)
        h = self.norm2(x) if self.pre_norm else x
        attended = self.multihead_attn(h + decoder_pos_embed, encoder_out + encoder_pos_embed, encoder_out)
        x = x + self.dropout2(attended)
        x = x if self.pre_norm else self.norm2(x)
        h = self.norm3(x) if self.pre_norm else x
        x = x + self.dropout3(self.linear2(self.dropout(self.activation(self.linear1(h)))))
        return x if self.pre_norm else self.norm3(x)


def get_activation_fn(activation: str) -> Callable[[Tensor], Tensor]:
    """relu or gelu; RuntimeError for another name, and for glu, which would halve the width."""
    if activation not in ("relu", "gelu"):
        raise RuntimeError(f"feedforward_activation='{activation}': expected relu or gelu.")
    return getattr(F, activation)
