"""Key names and file names, each standing once. The second name of a pair is the one newer LeRobot releases use."""

import os
from pathlib import Path

OBS_STR = "observation"
OBS_PREFIX = OBS_STR + "."
OBS_STATE = OBS_ROBOT = "observation.state"
OBS_ENV_STATE = OBS_ENV = "observation.environment_state"
OBS_IMAGE = "observation.image"
OBS_IMAGES = "observation.images"
OBS_LANGUAGE = "observation.language"
OBS_LANGUAGE_TOKENS = OBS_LANGUAGE + ".tokens"
OBS_LANGUAGE_ATTENTION_MASK = OBS_LANGUAGE + ".attention_mask"
OBS_LANGUAGE_SUBTASK = "observation.subtask"
OBS_LANGUAGE_SUBTASK_TOKENS = OBS_LANGUAGE_SUBTASK + ".tokens"
OBS_LANGUAGE_SUBTASK_ATTENTION_MASK = OBS_LANGUAGE_SUBTASK + ".attention_mask"
ACTION = "action"
ACTION_PREFIX = ACTION + "."
ACTION_TOKENS = ACTION_PREFIX + "tokens"
ACTION_TOKEN_MASK = ACTION_PREFIX + "token_mask"
ACTION_IS_PAD = "action_is_pad"
REWARD = "next.reward"
TRUNCATED = "next.truncated"
DONE = "next.done"
SUCCESS = "next.success"
INFO = "info"
TASK = "task"
SUBTASK = "subtask"
# What a frozen network makes of a frame; in a batch these stand in for pictures (and, for a prefix, the task).
DRAW_SEED = "draw_seed"

FROZEN_PREFIX = "frozen."
FROZEN_PICTURES = FROZEN_PREFIX + "pictures"
FROZEN_CONTEXT = FROZEN_PREFIX + "context"
FROZEN_MASK = FROZEN_PREFIX + "mask"

# Mean and std (C, 1, 1) of ImageNet's pictures in [0, 1].
IMAGENET_STATS = {
    "mean": [[[0.485]], [[0.456]], [[0.406]]],
    "std": [[[0.229]], [[0.224]], [[0.225]]],
}

ROBOTS = "robots"
TELEOPERATORS = "teleoperators"

# Files of a checkpoint.
CONFIG_NAME = "config.json"
EXTRAS_NAME = "extras.json"
SAFETENSORS_SINGLE_FILE = "model.safetensors"
TRAIN_CONFIG_NAME = "train_config.json"
CHECKPOINTS_DIR = "checkpoints"
LAST_CHECKPOINT_LINK = "last"
PRETRAINED_MODEL_DIR = "pretrained_model"
ALGORITHM_DIR = "algorithm"
TRAINING_STATE_DIR = "training_state"
RNG_STATE = "rng_state.safetensors"
TRAINING_STEP = "training_step.json"
OPTIMIZER_STATE = "optimizer_state.safetensors"
OPTIMIZER_PARAM_GROUPS = "optimizer_param_groups.json"
SCHEDULER_STATE = "scheduler_state.json"
POLICY_PREPROCESSOR_DEFAULT_NAME = "policy_preprocessor"
POLICY_POSTPROCESSOR_DEFAULT_NAME = "policy_postprocessor"

LOOKBACK_BACKTRACKTABLE = 100
LOOKAHEAD_BACKTRACKTABLE = 100
OPENPI_ATTENTION_MASK_VALUE = -2.3819763e38

if "LEROBOT_HOME" in os.environ:
    raise ValueError("LEROBOT_HOME is no longer read: set HF_LEROBOT_HOME instead.")
HF_HOME = Path(os.environ.get("HF_HOME", "~/.cache/huggingface")).expanduser()
HF_LEROBOT_HOME = Path(os.environ.get("HF_LEROBOT_HOME", HF_HOME / "lerobot")).expanduser()
HF_LEROBOT_HUB_CACHE = HF_LEROBOT_HOME / "hub"
HF_LEROBOT_CALIBRATION = Path(os.environ.get("HF_LEROBOT_CALIBRATION", HF_LEROBOT_HOME / "calibration")).expanduser()
