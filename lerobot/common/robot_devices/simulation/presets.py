"""How the simulated arms are mounted and held."""

CALIBRATIONS = {  # per preset the drive modes and homing offsets that a calibration finds
    "plain": ([0] * 6, [-2048] * 6),
    "hard": ([0, 0, 1, 1, 0, 1], [-2048, -1024, 3072, 1024, -3072, 2048]),
}
HAND_POSES = {  # degrees, as the calibrating operator holds an arm
    "zero": [0.0] * 6,
    "rotated": [90.0] * 6,
    "rest": [0.0, 134.0, 180.0, -19.0, 0.0, 35.0],
}
