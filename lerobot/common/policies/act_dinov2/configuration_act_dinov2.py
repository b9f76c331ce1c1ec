"""Configuration of ACT-DINOv2."""

import json
import logging
from dataclasses import dataclass
from typing import Any

import torch

from lerobot.common.constants import IMAGENET_STATS
from lerobot.common.policies.act.configuration_act import ACTConfig
from lerobot.common.policies.common.dinov2 import DINOv2Config
from lerobot.common.policies.common.dinov2_weights import config_from_json, published_config
from lerobot.configs.policies import PreTrainedConfig
from lerobot.configs.types import NormalizationMode

AUTO = "auto"  # pretrained_backbone_weights: those of vision_backbone
RESIZE_MODES = ("stretch", "letterbox", "snap")
FEATURE_MODES = ("grid", "cls", "grid_cls", "mean")
DTYPES = ("float32", "bfloat16", "float16")
# Fields of a public variant of the same name -> ours.
ALIASES = {
    "dinov2_model_name_or_path": "vision_backbone",
    "dinov2_image_size": "backbone_image_size",
    "dinov2_output_mode": "feature_mode",
    "dinov2_use_last_n_layers": "feature_last_n_layers",
    "dinov2_config_json": "backbone_config",
}
MEANINGLESS_ALIASES = ("dinov2_local_files_only", "dinov2_revision")  # the checkpoint holds the weights


@PreTrainedConfig.register_subclass("act_dinov2")
@dataclass
class ACTDINOv2Config(ACTConfig):
    """ACT (Zhao et al. 2023) with the patch tokens of a DINOv2 transformer (Oquab et al. 2023,
    https://arxiv.org/abs/2304.07193) in place of the ResNet's map.

    The backbone is frozen unless asked otherwise, so what it makes of a frame is a constant that can be kept. Choose it
    over ACT where the pictures vary (light, background, objects never seen): its features were learned from 142 M
    pictures; it costs more time per picture. At its default size (small; 40 M parameters trained, 22 M frozen) training
    takes 0.75 GB for weights, gradients and optimizer, and 0.2 GB of activations for each picture in a batch.

    Inputs as for ACT; pictures of any size are brought to `backbone_image_size`, and normalized with ImageNet's
    statistics whatever the dataset's are. Raises ValueError for values that do not go together.
    """

    # a published net (facebook/dinov2-small, dinov2-base, dinov2_vits14_reg...), a hub id or a folder
    vision_backbone: str = "facebook/dinov2-small"
    pretrained_backbone_weights: str | None = AUTO  # auto: those of vision_backbone; a file; null: random
    backbone_config: DINOv2Config | None = None  # sizes; filled when the policy is built, so checkpoints need no file
    freeze_backbone: bool = True
    n_unfrozen_layers: int = 0  # with freeze_backbone: the last blocks, and the final norm, train nevertheless
    optimizer_lr_backbone: float = 1e-6  # of what is trained of the backbone
    backbone_image_size: int | tuple[int, int] = 224  # or (height, width); multiples of the patch size
    resize_mode: str = "stretch"  # letterbox: keep the ratio, pad right and below; snap: only cut to multiples
    resize_interpolation: str = "bilinear"  # or bicubic
    resize_antialias: bool = True
    feature_mode: str = "grid"  # patches as a map; cls: the class token; grid_cls: both; mean: of the patches
    feature_last_n_layers: int = 1  # blocks whose outputs are averaged
    feature_pool: int = 1  # average-pooling of the map
    pos_embed_2d: str = "sinusoidal"  # or learned
    camera_embed: bool = False  # a learned vector per camera
    backbone_dtype: str = "float32"  # or bfloat16, float16 for a frozen backbone
    save_frozen_backbone: bool = True  # false: checkpoints leave a frozen backbone out and record its hash
    backbone_sha256: str | None = None  # that hash

    @classmethod
    def upgrade(cls, raw: dict[str, Any]) -> dict[str, Any]:
        """The fields of a stored config.json in our terms: names of a public variant, values inherited from ACT."""
        raw = dict(raw)
        if any(name in raw for name in (*ALIASES, *MEANINGLESS_ALIASES)):
            if (raw.get("dinov2_use_last_n_layers") or 1) > 1:
                logging.warning("This variant averages layers before the final norm; here each is normed first.")
            raw.setdefault("resize_antialias", False)
            raw = {ALIASES.get(k, k): v for k, v in raw.items() if k not in MEANINGLESS_ALIASES and not _unset(k, v)}
        if str(raw.get("vision_backbone", "")).startswith("resnet"):
            raw.pop("vision_backbone")
        if str(raw.get("pretrained_backbone_weights", "")).startswith("ResNet"):
            raw.pop("pretrained_backbone_weights")
        if isinstance(sizes := raw.get("backbone_config"), str):
            sizes = json.loads(sizes)
        if sizes:
            raw["backbone_config"] = vars(config_from_json(sizes)).copy()
        return raw

    @property
    def net(self) -> DINOv2Config | None:
        """Sizes of the backbone as far as they are known without reading files."""
        return self.backbone_config or published_config(self.vision_backbone)

    @property
    def patch_size(self) -> int:
        return self.net.patch_size if self.net else DINOv2Config.patch_size

    @property
    def backbone_is_frozen(self) -> bool:
        """Whether nothing of the backbone is trained."""
        return self.freeze_backbone and self.n_unfrozen_layers == 0

    def input_size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width in which the backbone sees a picture of this size."""
        if self.resize_mode == "snap":
            return height - height % self.patch_size, width - width % self.patch_size
        size = self.backbone_image_size
        return (size, size) if isinstance(size, int) else tuple(size)

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of the (pooled) map of a picture of this size."""
        size, step = self.input_size(height, width), self.patch_size * self.feature_pool
        return size[0] // step, size[1] // step

    def adapt_stats(self, stats: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        """ImageNet's mean and std for every picture, which the backbone was trained with."""
        imagenet = {name: torch.tensor(value) for name, value in IMAGENET_STATS.items()}
        return {**stats, **{key: {**stats.get(key, {}), **imagenet} for key in self.image_features}}

    def _check_vision_backbone(self) -> None:
        if self.vision_backbone.startswith("resnet"):
            raise ValueError(
                f"vision_backbone='{self.vision_backbone}': expected a DINOv2, for example facebook/dinov2-small; "
                "ResNets belong to --policy.type=act."
            )

    def _check_backbone(self) -> None:
        self._check_choices()
        self._check_sizes()
        if self.replace_final_stride_with_dilation:
            raise ValueError("replace_final_stride_with_dilation=true means nothing for a vision transformer.")
        for name in ("backbone_width", "backbone_layers", "backbone_norm"):
            if getattr(self, name) != getattr(ACTConfig, name):
                raise ValueError(f"{name}={getattr(self, name)} belongs to the ResNet of --policy.type=act.")
        if self.backbone_dtype != "float32" and not self.backbone_is_frozen:
            raise ValueError(
                f"backbone_dtype={self.backbone_dtype} with a backbone that is trained (freeze_backbone="
                f"{self.freeze_backbone}, n_unfrozen_layers={self.n_unfrozen_layers}): set backbone_dtype=float32."
            )
        if self.resize_mode == "snap" and (self.camera_embed or self.pos_embed_2d == "learned"):
            raise ValueError(
                "resize_mode=snap leaves the size of the map open: it goes with pos_embed_2d=sinusoidal and "
                "camera_embed=false only."
            )
        if not self.save_frozen_backbone and not (self.backbone_is_frozen and self.pretrained_backbone_weights):
            raise ValueError(
                "save_frozen_backbone=false leaves out weights that nothing could bring back: it needs "
                "freeze_backbone=true, n_unfrozen_layers=0 and pretrained_backbone_weights."
            )
        if self.normalization_mapping.get("VISUAL") is not NormalizationMode.MEAN_STD:
            raise ValueError(
                "normalization_mapping has another VISUAL than MEAN_STD: DINOv2 takes pictures normalized with "
                "ImageNet's mean and std, and does not do it itself."
            )

    def _check_choices(self) -> None:
        for name, choices in (
            ("resize_mode", RESIZE_MODES),
            ("resize_interpolation", ("bilinear", "bicubic")),
            ("feature_mode", FEATURE_MODES),
            ("pos_embed_2d", ("sinusoidal", "learned")),
            ("backbone_dtype", DTYPES),
        ):
            if getattr(self, name) not in choices:
                raise ValueError(f"{name}='{getattr(self, name)}': expected one of {', '.join(choices)}.")

    def _check_sizes(self) -> None:
        """Sizes and layer counts; called again when the sizes of the net are known from its files."""
        patch, layers = self.patch_size, self.net.num_hidden_layers if self.net else None
        if self.resize_mode != "snap":
            size = self.input_size(0, 0)
            if len(size) != 2 or any(side < patch or side % patch for side in size):
                raise ValueError(
                    f"backbone_image_size={self.backbone_image_size}: expected positive multiples of the patch size "
                    f"{patch}, for example {16 * patch}."
                )
            self._check_pool(size, f"backbone_image_size={self.backbone_image_size}")
        for name, least in (("feature_last_n_layers", 1), ("n_unfrozen_layers", 0)):
            value = getattr(self, name)
            if value < least or (layers is not None and value > layers):
                most = f" to {layers}, the blocks of the net" if layers else " or more"
                raise ValueError(f"{name}={value}: expected {least}{most}.")

    def _check_pool(self, size: tuple[int, int], where: str) -> None:
        rows, columns = size[0] // self.patch_size, size[1] // self.patch_size
        pool = self.feature_pool
        if pool < 1 or (self.feature_mode in ("grid", "grid_cls") and (rows % pool or columns % pool)):
            raise ValueError(f"feature_pool={pool} does not divide the map of {rows}x{columns} patches ({where}).")

    def validate_features(self) -> None:
        """As ACT; with resize_mode=snap each picture also has to hold a patch and divide by feature_pool."""
        super().validate_features()
        self._check_sizes()
        for key, (_, height, width) in self.image_shapes.items() if self.resize_mode == "snap" else ():
            size = self.input_size(height, width)
            if 0 in size:
                raise ValueError(f"'{key}' is {height}x{width}, smaller than a patch of {self.patch_size} pixels.")
            self._check_pool(size, f"'{key}' of {height}x{width}")


def _unset(name: str, value: Any) -> bool:
    return name in ALIASES and value is None
