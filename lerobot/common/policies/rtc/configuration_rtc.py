"""Configuration of real-time chunking at inference."""

from dataclasses import dataclass

from lerobot.configs.types import RTCAttentionSchedule


@dataclass
class RTCConfig:
    """How strongly a new chunk is drawn to the unplayed rest of the one before (Black et al. 2025, arXiv 2506.07339).

    Raises ValueError for numbers that are not positive.
    """

    enabled: bool = True
    prefix_attention_schedule: RTCAttentionSchedule = RTCAttentionSchedule.LINEAR  # how the pull fades along the chunk
    max_guidance_weight: float = 10.0  # of the pull, at most
    execution_horizon: int = 10  # actions from which on the new chunk is free
    debug: bool = False  # keep what guidance did at each step: policy.rtc_processor.get_all_debug_steps()
    debug_maxlen: int = 100  # of so many steps, the latest

    def __post_init__(self):
        for name in ("max_guidance_weight", "debug_maxlen"):
            if not getattr(self, name) > 0:
                raise ValueError(f"--policy.rtc_config.{name}={getattr(self, name)}: expected a positive number.")


def check_max_delay(longest: int, chunk_size: int) -> None:
    """Raise ValueError unless `rtc_training_max_delay` leaves at least one action of a chunk to predict."""
    if not 0 <= longest < chunk_size:
        raise ValueError(f"--policy.rtc_training_max_delay={longest}: expected 0 to {chunk_size - 1} (chunk_size - 1).")


__all__ = ["RTCAttentionSchedule", "RTCConfig", "check_max_delay"]
