"""ACT whose pictures go through a DINOv2 vision transformer, frozen by default."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import safe_open
from torch import Tensor, nn

from lerobot.common.constants import FROZEN_PREFIX, SAFETENSORS_SINGLE_FILE
from lerobot.common.policies.act.modeling_act import ACT, BACKBONE_PREFIX, ACTPolicy
from lerobot.common.policies.act_dinov2.configuration_act_dinov2 import AUTO, ACTDINOv2Config
from lerobot.common.policies.common.dinov2 import DINOv2
from lerobot.common.policies.common.dinov2_weights import (
    config_from_shapes,
    find_weights,
    fingerprint,
    load_dinov2_weights,
    resolve_config,
    transformers_name,
    transformers_names,
)
from lerobot.common.utils.hub import HUB_OPTIONS, find_file
from lerobot.configs.policies import PreTrainedConfig

MANY_TOKENS = 2048
CLS_SUFFIX = ".cls"
STORED_PREFIX = "features."  # the other name under which a batch may have the features of a picture
PROJECTION = "model.encoder_img_feat_input_proj.weight"


class ACTDINOv2Policy(ACTPolicy):
    """ACT-DINOv2 as a policy: losses and control of ACT; a frozen backbone is computed without a graph."""

    config_class = ACTDINOv2Config
    name = "act_dinov2"

    def _build_model(self) -> nn.Module:
        return ACTDINOv2(self.config)

    # --- frozen features ------------------------------------------------------------------------------------

    def frozen_feature_modes(self) -> tuple[str, ...]:
        """What the backbone makes of a picture, if nothing of it is trained and its size is fixed."""
        fixed = self.config.image_features and self.config.resize_mode != "snap"
        return ("vision",) if fixed and self.config.backbone_is_frozen else ()

    @torch.no_grad()
    def frozen_features(self, batch: dict[str, Tensor], mode: str = "vision") -> dict[str, Tensor]:
        """Per camera `frozen.<camera>`: the pooled map (B, Hd, gh, gw), or a vector (B, Hd) without one.

        With feature_mode=grid_cls also `frozen.<camera>.cls` (B, Hd). Before the projection, which is trained.
        """
        if mode not in self.frozen_feature_modes():
            return super().frozen_features(batch, mode)
        return self.model.compute_features(self.model._current_frame(batch), list(self.config.image_features))

    def frozen_inputs(self, mode: str = "vision") -> tuple[dict[str, Tensor], dict]:
        """Weights of the backbone, and everything of the configuration that its output depends on."""
        if mode not in self.frozen_feature_modes():
            return super().frozen_inputs(mode)
        names = (
            *("backbone_image_size", "resize_mode", "resize_interpolation", "resize_antialias"),
            *("feature_mode", "feature_last_n_layers", "feature_pool", "backbone_dtype"),
        )
        settings = {name: getattr(self.config, name) for name in names}
        return self.model.backbone.state_dict(), {**settings, "cameras": list(self.config.image_features)}

    # --- checkpoints ----------------------------------------------------------------------------------------

    @classmethod
    def from_pretrained(cls, pretrained_name_or_path: str | Path, *, config=None, **kwargs) -> ACTDINOv2Policy:
        """As for every policy; sizes that the configuration leaves open are read off the weights."""
        hub = {k: v for k, v in kwargs.items() if k in HUB_OPTIONS}
        if config is None:
            config = PreTrainedConfig.from_pretrained(pretrained_name_or_path, **hub)
        cls.require_config(config)
        if config.backbone_config is None:
            _fit_sizes(config, find_file(pretrained_name_or_path, SAFETENSORS_SINGLE_FILE, **hub))
        return super().from_pretrained(pretrained_name_or_path, config=config, **kwargs)

    @classmethod
    def config_for_loading(cls, config: ACTDINOv2Config) -> ACTDINOv2Config:
        """Without pretrained backbone weights: the checkpoint brings its own, or they are fetched afterwards."""
        return dataclasses.replace(config, pretrained_backbone_weights=None, save_frozen_backbone=True)

    def rename_keys(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Backbone tensors of wrappers and of the original release under our names; a linear projection as 1x1."""
        state = super().rename_keys(state)
        backbone = {k.removeprefix(f"{BACKBONE_PREFIX}."): v for k, v in state.items() if _of_backbone(k)}
        state = {k: v for k, v in state.items() if not _of_backbone(k)}
        if PROJECTION in state and state[PROJECTION].dim() == 2:
            state[PROJECTION] = state[PROJECTION][:, :, None, None]
        return state | {f"{BACKBONE_PREFIX}.{k}": v for k, v in transformers_names(backbone).items()}

    def load_weights(self, path: str | Path, strict: bool = False) -> None:
        """As for every policy; a backbone that the checkpoint leaves out is fetched and has to be the same one."""
        super().load_weights(path, strict)
        if self.config.save_frozen_backbone or not self.config.image_features:
            return
        self.model.load_pretrained(self.config)
        found = fingerprint(self.model.backbone.state_dict())
        if found != self.config.backbone_sha256:
            raise ValueError(
                f"The weights of '{self.config.vision_backbone}' (SHA-256 {found[:12]}...) are not those that the "
                f"checkpoint was trained with ({str(self.config.backbone_sha256)[:12]}...): give the right ones by "
                "--policy.pretrained_backbone_weights."
            )

    def may_be_missing(self, key: str) -> bool:
        """A mask token, which is never used, and a backbone that the checkpoint leaves out."""
        left_out = _of_backbone(key) and not self.config.save_frozen_backbone
        return left_out or key == f"{BACKBONE_PREFIX}.embeddings.mask_token" or super().may_be_missing(key)

    def state_dict(self, *args, **kwargs) -> dict[str, Tensor]:
        """All tensors, without the frozen backbone's if save_frozen_backbone is false."""
        state = super().state_dict(*args, **kwargs)
        if not self.config.save_frozen_backbone:
            for key in [k for k in state if f"{BACKBONE_PREFIX}." in k]:
                del state[key]
        return state


def _of_backbone(key: str) -> bool:
    return key.startswith(f"{BACKBONE_PREFIX}.")


def _fit_sizes(config: ACTDINOv2Config, weights: Path) -> None:
    """Take backbone_config and dim_model from the shapes in a weights file, where it holds a backbone."""
    with safe_open(str(weights), framework="pt") as f:
        shapes = {k.replace("_orig_mod.", ""): tuple(f.get_slice(k).get_shape()) for k in f.keys()}  # noqa: SIM118
    prefix = f"{BACKBONE_PREFIX}."
    backbone = {transformers_name(k.removeprefix(prefix)): s for k, s in shapes.items() if k.startswith(prefix)}
    if "embeddings.cls_token" in backbone:
        config.backbone_config = config_from_shapes(backbone)
    if PROJECTION in shapes:
        config.dim_model = shapes[PROJECTION][0]


class ACTDINOv2(ACT):
    """ACT's network with the tokens of a vision transformer for each camera.

    Letters as for ACT, and: Hd width of the backbone, gh x gw its (pooled) map.
    """

    def _build_backbone(self) -> nn.Module:
        config = self.config
        if config.backbone_config is None:
            config.backbone_config = resolve_config(config.vision_backbone)
        config.validate_features()  # once more, now that the number of blocks and the patch size are known
        self.backbone = DINOv2(config.backbone_config)
        if config.pretrained_backbone_weights is not None:
            self.load_pretrained(config)
        if config.freeze_backbone:
            self.backbone.freeze(config.n_unfrozen_layers)
        self.backbone.embeddings.mask_token.requires_grad_(False)
        self.backbone.to(getattr(torch, config.backbone_dtype))
        if not config.save_frozen_backbone:
            config.backbone_sha256 = fingerprint(self.backbone.state_dict())
        self._warn_of_many_tokens()
        return self.backbone

    def load_pretrained(self, config: ACTDINOv2Config) -> None:
        """Copy the weights that `pretrained_backbone_weights` names into the backbone."""
        weights = config.pretrained_backbone_weights
        load_dinov2_weights(self.backbone, find_weights(config.vision_backbone) if weights == AUTO else weights)

    def _warn_of_many_tokens(self) -> None:
        grids = [self.config.grid(*shape[1:]) for shape in self.config.image_shapes.values()]
        tokens = sum(rows * columns for rows, columns in grids)
        if tokens > MANY_TOKENS and "grid" in self.config.feature_mode:
            logging.warning(
                "%d picture tokens per observation: memory grows with their square; --policy.feature_pool=2 or a "
                "smaller --policy.backbone_image_size makes them fewer.",
                tokens,
            )

    def _build_image_positions(self, width: int) -> None:
        config = self.config
        if config.pos_embed_2d == "learned":
            rows, columns = config.grid(0, 0)
            self.encoder_cam_feat_pos_embed = _small_embedding(rows * columns, width)
        else:
            super()._build_image_positions(width)
        if config.feature_mode != "grid":
            self.encoder_cam_cls_pos_embed = _small_embedding(1, width)
        if config.camera_embed:
            self.encoder_camera_embed = nn.Embedding(len(config.image_features), width)
            nn.init.zeros_(self.encoder_camera_embed.weight)

    def train(self, mode: bool = True) -> ACTDINOv2:
        """Training or evaluation; a frozen backbone is always in evaluation."""
        super().train(mode)
        if self.config.image_features and self.config.backbone_is_frozen:
            self.backbone.eval()
        return self

    def _given(self, batch: dict[str, Tensor]) -> list[str]:
        return [key for key in self.config.image_features if _kept(batch, key) is not None]

    def _batch_size_and_device(self, batch: dict[str, Tensor]) -> tuple[int, torch.device]:
        for key in self.config.image_features:
            if (kept := _kept(batch, key)) is not None:
                return kept.shape[0], kept.device
        return super()._batch_size_and_device(batch)

    def _image_tokens(self, batch: dict[str, Tensor]) -> list[tuple[Tensor, Tensor]]:
        """Per camera the tokens (N, B, D) and positions (N, 1, D): the map row by row, then the class token."""
        computed = [key for key in self.config.image_features if _kept(batch, key) is None]
        features = self.compute_features(batch, computed) if computed else {}
        return [self._camera_tokens(i, key, {**batch, **features}) for i, key in enumerate(self.config.image_features)]

    def _camera_tokens(self, camera: int, key: str, features: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        main, mode = _kept(features, key), self.config.feature_mode
        tokens, positions = [], []
        if mode in ("grid", "grid_cls"):
            grid = self.encoder_img_feat_input_proj(self._as_trained(main))
            tokens.append(grid.flatten(2).permute(2, 0, 1))
            positions.append(self._grid_positions(grid))
        if mode != "grid":
            vector = _kept(features, key + CLS_SUFFIX) if mode == "grid_cls" else main
            tokens.append(self.encoder_img_feat_input_proj(self._as_trained(vector)[..., None, None])[None, :, :, 0, 0])
            positions.append(self.encoder_cam_cls_pos_embed.weight[:, None])
        position = torch.cat(positions)
        if self.config.camera_embed:
            position = position + self.encoder_camera_embed.weight[camera]
        return torch.cat(tokens), position

    def _as_trained(self, features: Tensor) -> Tensor:
        """Features in the dtype of the trained part (autocast chooses its own)."""
        return features.to(self.encoder_img_feat_input_proj.weight.dtype)

    def _grid_positions(self, grid: Tensor) -> Tensor:
        """(gh * gw, 1, D) of a projected map (B, D, gh, gw)."""
        if self.config.pos_embed_2d == "learned":
            return self.encoder_cam_feat_pos_embed.weight[:, None]
        return self.encoder_cam_feat_pos_embed(grid).flatten(2).permute(2, 0, 1)

    def compute_features(self, batch: dict[str, Tensor], keys: list[str]) -> dict[str, Tensor]:
        """What the backbone makes of cameras: `frozen.<camera>` and, with feature_mode=grid_cls, its `.cls`.

        Pictures that have one size after resizing share one call of the backbone.
        """
        pictures = {key: self._resize(batch[key]) for key in keys}
        features: dict[str, Tensor] = {}
        for shape in dict.fromkeys(picture.shape for picture in pictures.values()):
            same = [key for key in keys if pictures[key].shape == shape]
            tokens = self.backbone(torch.cat([pictures[k] for k in same]), self.config.feature_last_n_layers)
            for key, part in zip(same, tokens.chunk(len(same)), strict=True):
                features |= self._features_of(key, part, shape)
        return features

    def _features_of(self, key: str, tokens: Tensor, shape: torch.Size) -> dict[str, Tensor]:
        """Tokens (B, 1 + R + P, Hd) of pictures of a shape as the configured features."""
        mode, net, name = self.config.feature_mode, self.backbone.config, FROZEN_PREFIX + key
        patches = tokens[:, 1 + net.num_register_tokens :]
        if mode == "cls":
            return {name: tokens[:, 0]}
        if mode == "mean":
            return {name: patches.mean(dim=1)}
        rows, columns = shape[-2] // net.patch_size, shape[-1] // net.patch_size
        grid = patches.transpose(1, 2).unflatten(2, (rows, columns))
        if self.config.feature_pool > 1:
            grid = F.avg_pool2d(grid, self.config.feature_pool)
        return {name: grid} if mode == "grid" else {name: grid, name + CLS_SUFFIX: tokens[:, 0]}

    def _resize(self, pictures: Tensor) -> Tensor:
        """Normalized pictures (B, 3, h, w) in the size that the backbone sees."""
        height, width = pictures.shape[-2:]
        size = self.config.input_size(height, width)
        if (height, width) == size:
            return pictures
        if self.config.resize_mode != "letterbox":
            return self._interpolate(pictures, size)
        ratio = min(size[0] / height, size[1] / width)
        inner = (min(size[0], max(1, round(height * ratio))), min(size[1], max(1, round(width * ratio))))
        return F.pad(self._interpolate(pictures, inner), (0, size[1] - inner[1], 0, size[0] - inner[0]))

    def _interpolate(self, pictures: Tensor, size: tuple[int, int]) -> Tensor:
        mode, antialias = self.config.resize_interpolation, self.config.resize_antialias
        return F.interpolate(pictures, size, mode=mode, antialias=antialias, align_corners=False)


def _kept(batch: dict[str, Tensor], key: str) -> Tensor | None:
    """The features of a camera that a batch has instead of, or beside, its picture."""
    return batch.get(FROZEN_PREFIX + key, batch.get(STORED_PREFIX + key))


def _small_embedding(count: int, width: int) -> nn.Embedding:
    embedding = nn.Embedding(count, width)
    nn.init.normal_(embedding.weight, std=0.02)
    return embedding
