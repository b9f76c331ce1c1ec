"""VQ-BeT: a transformer chooses among learned action chunks and corrects its choice (Lee et al. 2024).

Letters: B batch, O observation steps, R chunks per sample, c steps per chunk, A action, W = c * A, S state, D width,
G layers of codes (2), Kq codes per layer.
"""

from __future__ import annotations

import dataclasses
import logging
import warnings

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lerobot.common.constants import ACTION, ACTION_IS_PAD, OBS_STATE
from lerobot.common.policies.common.action_queue import ActionQueue
from lerobot.common.policies.common.inputs import require_actions, require_inputs
from lerobot.common.policies.common.losses import STEPS, masked_mean, repeat_into_padding
from lerobot.common.policies.common.observation_history import ObservationHistory, training_windows
from lerobot.common.policies.common.rgb_encoder import RgbEncoder as VQBeTRgbEncoder
from lerobot.common.policies.common.vision_options import check_weights, takes_one_size
from lerobot.common.policies.pretrained import PreTrainedPolicy
from lerobot.common.policies.utils import eval_mode
from lerobot.common.policies.vqbet.configuration_vqbet import VQBeTConfig
from lerobot.common.policies.vqbet.vqbet_utils import GPT, MLP, ResidualVQ

LAYERS = 2  # of codes
CHUNKS, CHUNK_STEPS = "chunks", "chunk_steps"  # names of the masks that the second phase averages over
COMMITMENT_WEIGHT = 5.0
FOCAL_GAMMA = 2.0


class VQBeTPolicy(PreTrainedPolicy):
    """VQ-BeT as a policy; the first `n_vqvae_training_steps` calls of `forward` in training learn the codes."""

    config_class = VQBeTConfig
    name = "vqbet"
    recordable = ("vqbet.generate",)

    def __init__(self, config: VQBeTConfig, **kwargs):
        super().__init__(config)
        if config.device == "mps":
            raise NotImplementedError("VQ-BeT does not run on mps: set --policy.device=cpu.")
        config.validate_features()
        check_weights(config)
        self.vqbet = VQBeTModel(config)
        self.reset()

    @classmethod
    def config_for_loading(cls, config: VQBeTConfig) -> VQBeTConfig:
        """Without pretrained backbone weights: the checkpoint brings its own."""
        return dataclasses.replace(config, pretrained_backbone_weights=None)

    def get_optim_params(self) -> list[dict]:
        """Three groups: with weight decay, the autoencoder with its own rate and decay, without decay."""
        model = self.vqbet
        decayed, plain = model.policy.parameter_groups()
        vqvae = model.action_head.vqvae_model
        for module in (model.rgb_encoder, model.state_projector, model.rgb_feature_projector):
            decayed += module.parameters()
        decayed.append(model.action_token)
        for module in (model.action_head.map_to_cbet_preds_offset, *model.action_head.bin_heads):
            decayed += module.parameters()
        return [
            {"params": decayed},
            {
                "params": [*vqvae.encoder.parameters(), *vqvae.decoder.parameters()],
                "lr": self.config.optimizer_vqvae_lr,
                "weight_decay": self.config.optimizer_vqvae_weight_decay,
            },
            {"params": plain, "weight_decay": 0.0},
        ]

    def reset(self) -> None:
        """Forget queued actions and past observations."""
        self._action_queue = ActionQueue(self.config.action_chunk_size)
        seen = {OBS_STATE: self.config.robot_state_feature, **self.config.image_features}
        self._history = ObservationHistory(seen, self.config.n_obs_steps)

    def needs_observation(self) -> bool:
        """Whether a coming prediction sees the batch of the next `select_action`.

        With more queued actions than remembered observations, this one is forgotten before the next prediction.
        """
        return len(self._action_queue) < self.config.n_obs_steps

    @torch.no_grad()
    def select_action(self, batch: dict[str, Tensor], **kwargs) -> Tensor:
        """Next action (B, A), normalized. Every call is remembered as an observation."""
        require_inputs(self.config, batch, fixed_size=takes_one_size(self.config))
        self._history.append(batch)
        if self._action_queue.is_empty:
            self._action_queue.extend(self.predict_action_chunk(batch))
        return self._action_queue.pop()

    @torch.no_grad()
    def predict_action_chunk(self, batch: dict[str, Tensor], **kwargs) -> Tensor:
        """Chunk (B, c, A) from the present frame on, normalized and sampled; queue and history stay as they are.

        Observations with a time axis (B, O, ...) are used as they are; otherwise those that `select_action` was given,
        or if there were none the one in `batch`.
        """
        if not self.vqbet.action_head.vqvae_model.discretized:
            warnings.warn(
                "This VQ-BeT has not finished its first phase (n_vqvae_training_steps="
                f"{self.config.n_vqvae_training_steps}), so its actions mean nothing: train it for more --steps.",
                stacklevel=2,
            )
        with eval_mode(self):
            return self.vqbet.generate(self._history.window(batch)).float()  # also under autocast

    def step_masks(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Chunks (B, R) that are cut short, whose code is not learnt, and padded steps of all chunks (B, R * c)."""
        masks = super().step_masks(batch)
        return self.vqbet.chunk_masks(masks[STEPS]) if masks else {}

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss of the phase that the policy is in."""
        config = self.config
        steps = config.n_chunks + config.action_chunk_size - 1
        require_actions(config, batch, steps, "n_obs_steps + n_action_pred_token + action_chunk_size - 2")
        is_pad = None if config.loss_over_padding else batch.get(ACTION_IS_PAD)
        actions = repeat_into_padding(batch[ACTION], is_pad)
        if not self.vqbet.action_head.vqvae_model.discretized:
            result = self.vqbet.learn_codes(actions, is_pad)
            config.n_vqvae_steps_done = self.vqbet.action_head.vqvae_steps  # saved with the configuration
            return result
        require_inputs(config, batch, fixed_size=takes_one_size(config))
        observations = training_windows(batch, self._history.features, config.n_obs_steps)
        return self.vqbet.compute_loss(observations, actions, is_pad)


class VQBeTModel(nn.Module):
    """Encoders, transformer and action head."""

    def __init__(self, config: VQBeTConfig):
        super().__init__()
        self.config = config
        width = config.gpt_input_dim
        self.rgb_encoder = VQBeTRgbEncoder(config)
        self.action_token = nn.Parameter(torch.randn(1, 1, width))
        self.state_projector = MLP(config.robot_state_feature.shape[0], [width])
        self.rgb_feature_projector = MLP(self.rgb_encoder.feature_dim, [width])
        self.policy = GPT(config)
        self.action_head = VQBeTHead(config)
        windows = torch.arange(config.n_chunks)[:, None] + torch.arange(config.action_chunk_size)
        self.register_buffer("select_target_actions_indices", windows)  # (R, c)

    def learn_codes(self, actions: Tensor, is_pad: Tensor | None) -> tuple[Tensor, dict[str, Tensor]]:
        """First phase: the autoencoder's loss on every chunk of actions (B, T, A) that has no padded step."""
        chunks = actions[:, self.select_target_actions_indices].transpose(0, 1).flatten(0, 1)  # window after window
        if is_pad is not None:
            chunks = chunks[~self.chunk_masks(is_pad)[CHUNKS].T.flatten()]
        return self.action_head.discretize(self.config.n_vqvae_training_steps, chunks)

    def compute_loss(
        self, batch: dict[str, Tensor], actions: Tensor, is_pad: Tensor | None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Second phase: loss of the chosen codes and of the correction."""
        masks = {} if is_pad is None else self.chunk_masks(is_pad)
        return self.action_head.loss_fn(self._tokens(batch), actions[:, self.select_target_actions_indices], masks)

    def generate(self, observations: dict[str, Tensor]) -> Tensor:
        """The present action token's chunk (B, c, A), given observations (B, O, ...)."""
        # Codes are drawn for every token, although one is used, so that a seed gives LeRobot's draws.
        chunks = self.action_head(self._tokens(observations))["predicted_action"]
        return chunks[:, self.config.n_obs_steps - 1].unflatten(-1, (self.config.action_chunk_size, -1))

    def chunk_masks(self, is_pad: Tensor) -> dict[str, Tensor]:
        """From padded actions (B, T): chunks (B, R) with a padded step, and the padded steps of all (B, R * c)."""
        padded = is_pad[:, self.select_target_actions_indices]
        return {CHUNKS: padded.any(-1), CHUNK_STEPS: padded.flatten(1)}

    def _tokens(self, batch: dict[str, Tensor]) -> Tensor:
        """What the transformer gives for each action token, (B, R, D)."""
        key = next(iter(self.config.image_features))
        size = batch[key].shape[:2]
        pictures = self.rgb_encoder(batch[key].flatten(0, 1)).unflatten(0, size)
        action_tokens = self.action_token.expand(*size, -1)
        per_step = [self.rgb_feature_projector(pictures), self.state_projector(batch[OBS_STATE]), action_tokens]
        tokens = torch.stack([t.to(per_step[0].dtype) for t in per_step], dim=2).flatten(1, 2)
        future = tokens[:, -1:].expand(-1, self.config.n_action_pred_token - 1, -1)
        out = self.policy(torch.cat([tokens, future], dim=1))
        present = out[:, len(per_step) - 1 : size[1] * len(per_step) : len(per_step)]
        return torch.cat([present, out[:, size[1] * len(per_step) :]], dim=1)


class VQBeTHead(nn.Module):
    """From an action token to codes, sampled, and a correction of the chunk that they stand for."""

    def __init__(self, config: VQBeTConfig):
        super().__init__()
        self.config = config
        self.vqvae_model = VqVae(config)
        self.vqvae_steps = config.n_vqvae_steps_done
        inside, codes = config.gpt_output_dim, config.vqvae_n_embed
        if config.sequentially_select:
            self.map_to_cbet_preds_primary_bin = MLP(inside, [codes])
            self.map_to_cbet_preds_secondary_bin = MLP(inside + codes, [codes])
        else:
            self.map_to_cbet_preds_bin = MLP(inside, [LAYERS * codes])
        chunk = config.action_chunk_size * config.action_feature.shape[0]
        self.map_to_cbet_preds_offset = MLP(inside, [LAYERS * codes * chunk])
        self._focal_loss_fn = FocalLoss(gamma=FOCAL_GAMMA)

    @property
    def bin_heads(self) -> list[nn.Module]:
        """The heads that choose codes."""
        if self.config.sequentially_select:
            return [self.map_to_cbet_preds_primary_bin, self.map_to_cbet_preds_secondary_bin]
        return [self.map_to_cbet_preds_bin]

    def discretize(self, n_vqvae_training_steps: int, chunks: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """One step of the first phase on chunks (N, c, A); after the last one the codes are fixed."""
        loss, indices, error = self.vqvae_model.vqvae_forward(chunks)
        chosen = F.one_hot(indices, self.config.vqvae_n_embed)  # (N, G, Kq)
        pairs = chosen[:, 0, :, None] * chosen[:, 1, None, :]
        info = {
            "n_different_codes": chosen.any(0).sum(),
            "n_different_combinations": pairs.any(0).sum(),
            "recon_l1_error": error,
        }
        if self.training:  # a validation loss is no step
            self.vqvae_steps += 1
            if self.vqvae_steps >= n_vqvae_training_steps:
                self._finish_first_phase()
        return loss, info

    def _finish_first_phase(self) -> None:
        vqvae = self.vqvae_model
        vqvae.discretized.fill_(True)
        vqvae.vq_layer.freeze_codebook.fill_(True)
        vqvae.eval()
        logging.info(
            "VQ-BeT: the codes are fixed after %d steps; unused ones per layer: %s of %d.",
            self.vqvae_steps,
            vqvae.vq_layer.dead_codes(),
            self.config.vqvae_n_embed,
        )

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """x (..., D) -> `logits` (N, G, Kq), sampled `codes` (N, G), `decoded_action`, `predicted_action` (..., W)."""
        flat = x.flatten(0, -2)
        if self.config.sequentially_select:
            logits, codes = self._sample_in_turn(flat)
        else:
            logits = self.map_to_cbet_preds_bin(flat).unflatten(-1, (LAYERS, -1))
            codes = self._sample(logits)
        offsets = self.map_to_cbet_preds_offset(flat).unflatten(-1, (LAYERS, self.config.vqvae_n_embed, -1))
        chosen = codes[..., None, None].expand(-1, -1, 1, offsets.shape[-1])
        offset = offsets.gather(2, chosen).squeeze(2).sum(1)
        with torch.no_grad():
            decoded = self.vqvae_model.decode(codes)
        return {
            "logits": logits,
            "codes": codes,
            "decoded_action": decoded.unflatten(0, x.shape[:-1]),
            "predicted_action": (decoded + offset).unflatten(0, x.shape[:-1]),
        }

    def _sample(self, logits: Tensor) -> Tensor:
        """One code per layer, int64 (N, G), from logits (N, G, Kq)."""
        probabilities = (logits.float() / self.config.bet_softmax_temperature).softmax(-1)
        return torch.multinomial(probabilities.flatten(0, 1), 1).view(logits.shape[:-1])

    def _sample_in_turn(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (N, G, Kq) and codes (N, G), the second layer's given the first's."""
        primary = self.map_to_cbet_preds_primary_bin(x)
        first = self._sample(primary[:, None])
        known = F.one_hot(first[:, 0], self.config.vqvae_n_embed).to(x.dtype)
        secondary = self.map_to_cbet_preds_secondary_bin(torch.cat([x, known], dim=-1))
        second = self._sample(secondary[:, None])
        return torch.stack([primary, secondary], dim=1), torch.cat([first, second], dim=1)

    def loss_fn(self, tokens: Tensor, targets: Tensor, masks: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """tokens (B, R, D), target chunks (B, R, c, A), `masks` of `chunk_masks`, empty where nothing is padded."""
        config = self.config
        out = self(tokens)
        true_codes = self.vqvae_model.get_code(targets.flatten(0, 1))  # (N, G)
        padded_steps = masks.get(CHUNK_STEPS)
        cut = masks[CHUNKS].view(-1, 1) if masks else None  # chunks whose code is not the demonstrated one
        primary = self._focal_loss_fn(out["logits"][:, 0], true_codes[:, 0], cut)
        secondary = self._focal_loss_fn(out["logits"][:, 1], true_codes[:, 1], cut)
        classification = config.primary_code_loss_weight * primary + config.secondary_code_loss_weight * secondary

        targets = targets.flatten(1, 2)  # (B, R * c, A)
        predicted = out["predicted_action"].reshape(targets.shape)
        decoded = out["decoded_action"].reshape(targets.shape)
        error = (targets - predicted).abs()
        offset = masked_mean(error, padded_steps, steps=CHUNK_STEPS)
        loss = classification + config.offset_loss_weight * offset
        with torch.no_grad():
            right = (out["codes"] == true_codes).float().unbind(1)
            equal = [masked_mean(e[:, None], cut, steps=CHUNKS) for e in right]
            valid = error if padded_steps is None else error.masked_fill(padded_steps[..., None], 0)
            info = {
                "classification_loss": classification.detach(),
                "offset_loss": offset.detach(),
                "equal_primary_code_rate": equal[0],
                "equal_secondary_code_rate": equal[1],
                "vq_action_error": masked_mean((targets - decoded).abs(), padded_steps, steps=CHUNK_STEPS),
                "offset_action_error": offset.detach(),
                "action_error_max": valid.max(),
                "action_mse_error": masked_mean(error.square(), padded_steps, steps=CHUNK_STEPS),
            }
        return loss, info


class VqVae(nn.Module):
    """Autoencoder of action chunks through residual codes."""

    def __init__(self, config: VQBeTConfig):
        super().__init__()
        self.register_buffer("discretized", torch.tensor(False))  # whether the first phase is over
        chunk = config.action_chunk_size * config.action_feature.shape[0]
        hidden, code = config.vqvae_enc_hidden_dim, config.vqvae_embedding_dim
        self.vq_layer = ResidualVQ(code, LAYERS, config.vqvae_n_embed, config.reseed_dead_codes)
        self.encoder = MLP(chunk, [hidden, hidden, code])
        self.decoder = MLP(code, [hidden, hidden, chunk])

    @torch.no_grad()
    def get_code(self, chunks: Tensor) -> Tensor:
        """Codes int64 (N, G) of chunks (N, c, A)."""
        return self.vq_layer(self.encoder(chunks.flatten(1)))[1]

    def decode(self, indices: Tensor) -> Tensor:
        """Codes (N, G) -> the chunks that they stand for (N, W)."""
        return self.decoder(self.vq_layer.codes_of(indices))

    def vqvae_forward(self, chunks: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Loss, codes (N, G) and mean absolute reconstruction error of chunks (N, c, A); N may be 0."""
        x = chunks.flatten(1)
        quantized, indices, commitment = self.vq_layer(self.encoder(x))
        error = masked_mean((x - self.decoder(quantized)).abs(), None)
        return error + COMMITMENT_WEIGHT * commitment.sum(), indices, error.detach()


class FocalLoss(nn.Module):
    """Cross entropy that counts samples the less, the surer they already are (Lin et al. 2017)."""

    def __init__(self, gamma: float = 0.0):
        super().__init__()
        self.gamma = gamma

    def forward(self, logits: Tensor, target: Tensor, is_pad: Tensor | None = None) -> Tensor:
        """logits (N, Kq), target int64 (N,), is_pad bool (N, 1) -> the mean over what is not padded."""
        log_p = logits.float().log_softmax(-1).gather(1, target[:, None])
        return masked_mean(-((1 - log_p.exp()) ** self.gamma) * log_p, is_pad, steps=CHUNKS)
