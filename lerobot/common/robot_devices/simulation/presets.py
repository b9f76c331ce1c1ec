"""How the simulated servos are mounted: per preset the drive modes and homing offsets that a calibration finds."""

CALIBRATIONS = {
    "plain": ([0] * 6, [-2048] * 6),
    "hard": ([0, 0, 1, 1, 0, 1], [-2048, -1024, 3072, 1024, -3072, 2048]),
}
