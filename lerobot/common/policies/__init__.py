"""The policies; importing this package registers their configurations (and nothing heavy)."""

from lerobot.common.policies.act.configuration_act import ACTConfig
from lerobot.common.policies.act_dinov2.configuration_act_dinov2 import ACTDINOv2Config
from lerobot.common.policies.diffusion.configuration_diffusion import DiffusionConfig
from lerobot.common.policies.pi0.configuration_pi0 import PI0Config
from lerobot.common.policies.smolvla.configuration_smolvla import SmolVLAConfig
from lerobot.common.policies.tdmpc.configuration_tdmpc import TDMPCConfig
from lerobot.common.policies.vqbet.configuration_vqbet import VQBeTConfig

__all__ = [
    "ACTConfig",
    "ACTDINOv2Config",
    "DiffusionConfig",
    "PI0Config",
    "SmolVLAConfig",
    "TDMPCConfig",
    "VQBeTConfig",
]
