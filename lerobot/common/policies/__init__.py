"""The policies; importing this package registers their configurations (and nothing heavy)."""

from lerobot.common.policies.act.configuration_act import ACTConfig
from lerobot.common.policies.pi0.configuration_pi0 import PI0Config
from lerobot.common.policies.smolvla.configuration_smolvla import SmolVLAConfig
from lerobot.common.policies.tdmpc.configuration_tdmpc import TDMPCConfig

__all__ = ["ACTConfig", "PI0Config", "SmolVLAConfig", "TDMPCConfig"]
