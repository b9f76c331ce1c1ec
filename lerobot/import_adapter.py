"""Module names of newer LeRobot releases (`lerobot.policies...`), served as the modules of this package.

`MODULES` maps a module name, or a prefix of names, to the module it means here; both names give one module
object, so classes and registries exist once. `NAMES` lists names that a module offers beside what stands in
its own file; a module that has only such names is made of them. Nothing is imported before it is asked for.
An unknown name is an ImportError that says what the nearest existing name is.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

MODULES = {
    "lerobot.datasets": "lerobot.common.datasets",
    # Not the package itself: `make_env` of the new names returns environments by group and task.
    "lerobot.envs.configs": "lerobot.common.envs.configs",
    "lerobot.envs.utils": "lerobot.common.envs.utils",
    "lerobot.envs.factory": "lerobot.common.envs.task_envs",
    "lerobot.optim": "lerobot.common.optim",
    "lerobot.policies": "lerobot.common.policies",
    "lerobot.processor": "lerobot.common.processor",
    "lerobot.utils": "lerobot.common.utils",
    "lerobot.constants": "lerobot.common.constants",
    "lerobot.utils.constants": "lerobot.common.constants",
    "lerobot.utils.device_utils": "lerobot.common.utils.device",
    "lerobot.utils.train_utils": "lerobot.common.training.checkpoint",
    "lerobot.common.train_utils": "lerobot.common.training.checkpoint",
    "lerobot.rl.wandb_utils": "lerobot.common.utils.wandb_utils",
    "lerobot.common.wandb_utils": "lerobot.common.utils.wandb_utils",
    "lerobot.transforms": "lerobot.common.datasets.transforms",
    "lerobot.lerobot_types": "lerobot.common.processor.core",
    "lerobot.processor.normalize_processor": "lerobot.common.processor.normalize",
    "lerobot.processor.tokenizer_processor": "lerobot.common.processor.tokenizer",
    "lerobot.processor.device_processor": "lerobot.common.processor.device",
    "lerobot.processor.batch_processor": "lerobot.common.processor.batch",
    "lerobot.processor.rename_processor": "lerobot.common.processor.rename",
    "lerobot.processor.observation_processor": "lerobot.common.processor.observation",
    "lerobot.processor.newline_processor": "lerobot.common.processor.text",
    "lerobot.processor.delta_action_processor": "lerobot.common.processor.robot_actions",
    "lerobot.processor.gym_action_processor": "lerobot.common.processor.robot_actions",
    "lerobot.processor.policy_robot_bridge": "lerobot.common.processor.robot_actions",
    "lerobot.processor.joint_observations_processor": "lerobot.common.processor.interaction",
    "lerobot.datasets.io_utils": "lerobot.common.datasets.utils",
    "lerobot.datasets.pipeline_features": "lerobot.common.datasets.feature_utils",
    "lerobot.utils.feature_utils": "lerobot.common.datasets.feature_utils",
    "lerobot.utils.control_utils": "lerobot.common.robot_devices.control_utils",
    "lerobot.common.control_utils": "lerobot.common.robot_devices.control_utils",
    "lerobot.utils.errors": "lerobot.common.robot_devices.utils",
    "lerobot.utils.robot_utils": "lerobot.common.robot_devices.utils",
    "lerobot.cameras.configs": "lerobot.common.robot_devices.cameras.configs",
    "lerobot.cameras.utils": "lerobot.common.robot_devices.cameras.utils",
    "lerobot.motors": "lerobot.common.robot_devices.motors",
    "lerobot.robots": "lerobot.common.robot_devices.robots",
    "lerobot.scripts.convert_dataset_v21_to_v30": "lerobot.common.datasets.v30.convert_dataset_v21_to_v30",
    "lerobot.scripts.lerobot_train": "lerobot.scripts.train",
    "lerobot.scripts.lerobot_eval": "lerobot.scripts.eval",
    "lerobot.scripts.lerobot_dataset_viz": "lerobot.scripts.visualize_dataset",
    "lerobot.scripts.lerobot_imgtransform_viz": "lerobot.scripts.visualize_image_transforms",
    "lerobot.scripts.lerobot_info": "lerobot.scripts.display_sys_info",
    "lerobot.scripts.lerobot_find_port": "lerobot.scripts.find_motors_bus_port",
    "lerobot.scripts.lerobot_find_cameras": "lerobot.scripts.find_cameras",
    "lerobot.scripts.lerobot_setup_motors": "lerobot.scripts.configure_motor",
    "lerobot.async_inference": "lerobot.common.inference_server",
    "lerobot.async_inference.policy_server": "lerobot.scripts.policy_server",
    "lerobot.async_inference.robot_client": "lerobot.scripts.robot_client",
    "lerobot.scripts.server.policy_server": "lerobot.scripts.policy_server",
    "lerobot.scripts.server.robot_client": "lerobot.scripts.robot_client",
    "lerobot.scripts.server.configs": "lerobot.common.inference_server.configs",
    "lerobot.find_port": "lerobot.scripts.find_motors_bus_port",
    "lerobot.record": "lerobot.scripts.lerobot_record",
    "lerobot.replay": "lerobot.scripts.lerobot_replay",
    "lerobot.teleoperate": "lerobot.scripts.lerobot_teleoperate",
    "lerobot.calibrate": "lerobot.scripts.lerobot_calibrate",
}

# Module that offers -> module where the names stand -> the names; `New=old` where the name here is another one.
NAMES = {
    "lerobot.common.policies": {
        "lerobot.common.policies.factory": "get_policy_class make_policy make_policy_config make_pre_post_processors",
        "lerobot.common.policies.pretrained": "PreTrainedPolicy",
        "lerobot.common.policies.robot_frames": "make_robot_action prepare_observation_for_inference",
        "lerobot.common.processor": "SmolVLANewLineProcessor",
    },
    "lerobot.common.policies.rtc": {
        "lerobot.common.policies.rtc.action_queue": "ActionQueue",
        "lerobot.common.policies.rtc.configuration_rtc": "RTCConfig RTCAttentionSchedule",
        "lerobot.common.policies.rtc.modeling_rtc": "RTCProcessor",
    },
    "lerobot.common.policies.utils": {
        "lerobot.common.policies.robot_frames": (
            "prepare_observation_for_inference build_inference_frame make_robot_action "
            "raise_feature_mismatch_error validate_visual_features_consistency"
        ),
    },
    "lerobot.common.datasets": {
        "lerobot.common.datasets.lerobot_dataset": "LeRobotDataset LeRobotDatasetMetadata CODEBASE_VERSION",
        "lerobot.common.datasets.multi_dataset": "MultiLeRobotDataset",
        "lerobot.common.datasets.streaming_dataset": "StreamingLeRobotDataset",
        "lerobot.common.datasets.factory": "make_dataset resolve_delta_timestamps",
        "lerobot.common.datasets.sampler": "EpisodeAwareSampler",
        "lerobot.common.datasets.compute_stats": "aggregate_stats get_feature_stats DEFAULT_QUANTILES",
        "lerobot.common.datasets.utils": "load_episodes write_stats",
        "lerobot.common.datasets.dataset_tools": (
            "add_features delete_episodes merge_datasets modify_features modify_tasks remove_feature split_dataset"
        ),
        "lerobot.common.datasets.aggregate": "aggregate_datasets",
        "lerobot.common.datasets.hub_upload": "create_lerobot_dataset_card",
        "lerobot.common.datasets.video_api": "VideoEncodingManager",
        "lerobot.common.datasets.v30.files": "DEFAULT_EPISODES_PATH",
        "lerobot.common.datasets.feature_utils": "aggregate_pipeline_dataset_features create_initial_features",
        "lerobot.common.datasets.image_writer": "safe_stop_image_writer",
    },
    "lerobot.common.datasets.lerobot_dataset": {
        "lerobot.common.datasets.multi_dataset": "MultiLeRobotDataset",
        "lerobot.common.datasets.utils": "DEFAULT_FEATURES DEFAULT_IMAGE_PATH INFO_PATH",
        "lerobot.common.datasets.v30.files": "DEFAULT_EPISODES_PATH",
    },
    "lerobot.common.datasets.compute_stats": {"lerobot.common.datasets.running_stats": "RunningQuantileStats"},
    "lerobot.common.datasets.push_dataset_to_hub.utils": {
        "lerobot.common.datasets.hf_tables": "calculate_episode_data_index",
    },
    "lerobot.common.datasets.feature_utils": {
        "lerobot.common.datasets.utils": "dataset_to_policy_features",
    },
    "lerobot.common.datasets.utils": {
        "lerobot.common.datasets.feature_utils": (
            "hw_to_dataset_features build_dataset_frame combine_feature_dicts validate_features_presence "
            "validate_feature_dtype_and_shape validate_feature_numpy_array validate_feature_image_or_video "
            "validate_feature_string validate_episode_buffer"
        ),
        "lerobot.common.datasets.compute_stats": "load_image_as_numpy",
        "lerobot.common.datasets.v30.files": (
            "EPISODES_DIR DEFAULT_TASKS_PATH DEFAULT_EPISODES_PATH DEFAULT_DATA_PATH "
            "DEFAULT_DATA_FILE_SIZE_IN_MB DEFAULT_VIDEO_FILE_SIZE_IN_MB"
        ),
        "lerobot.common.datasets.utils": (
            "LEGACY_EPISODES_PATH=EPISODES_PATH LEGACY_EPISODES_STATS_PATH=EPISODES_STATS_PATH "
            "LEGACY_TASKS_PATH=TASKS_PATH LEGACY_DEFAULT_PARQUET_PATH=DEFAULT_PARQUET_PATH "
            "LEGACY_DEFAULT_VIDEO_PATH=DEFAULT_VIDEO_PATH"
        ),
        "lerobot.common.datasets.hf_tables": (
            "CHUNK_FILE_PATTERN DATA_DIR VIDEO_DIR hf_transform_to_torch item_to_torch serialize_dict "
            "find_float_index is_float_in_list calculate_episode_data_index get_file_size_in_mb "
            "get_parquet_file_size_in_mb get_parquet_num_frames get_hf_dataset_size_in_mb "
            "update_chunk_file_indices write_tasks write_episodes get_hf_features_from_features embed_images "
            "load_nested_dataset to_parquet_with_hf_images safe_shard"
        ),
        "lerobot.common.datasets.lookaround": "Backtrackable LookBackError LookAheadError",
        "lerobot.common.datasets.hub_upload": "create_branch create_lerobot_dataset_card",
        "lerobot.common.datasets.legacy_metadata": (
            "IterableNamespace get_nested_item write_task write_episode write_episode_stats"
        ),
        "lerobot.common.utils.utils": "is_valid_numpy_dtype_string",
        "lerobot.common.utils.terminal": "SuppressProgressBars",
    },
    "lerobot.common.datasets.video_utils": {
        "lerobot.common.datasets.video_files": "concatenate_video_files get_video_duration_in_s",
        "lerobot.common.datasets.video_api": (
            "VideoFrame VideoDecoderCache VideoEncodingManager decode_video_frames_torchcodec "
            "decode_video_frames_torchvision get_audio_info get_image_pixel_channels"
        ),
    },
    "lerobot.configs": {
        "lerobot.configs.default": "DatasetConfig EvalConfig PeftConfig WandBConfig",
        "lerobot.configs.policies": "PreTrainedConfig",
        "lerobot.configs.types": (
            "FeatureType NormalizationMode PipelineFeatureType PolicyFeature RTCAttentionSchedule"
        ),
    },
    "lerobot.common.optim": {
        "lerobot.common.optim.optimizers": (
            "OptimizerConfig AdamConfig AdamWConfig SGDConfig MultiAdamConfig save_optimizer_state load_optimizer_state"
        ),
        "lerobot.common.optim.schedulers": (
            "LRSchedulerConfig DiffuserSchedulerConfig VQBeTSchedulerConfig "
            "CosineDecayWithWarmupSchedulerConfig save_scheduler_state load_scheduler_state"
        ),
    },
    "lerobot.common.envs": {
        "lerobot.common.envs.configs": "EnvConfig AlohaEnv PushtEnv XarmEnv",
        "lerobot.common.envs.factory": "make_env make_env_config",
        "lerobot.common.envs.utils": "check_env_attributes_and_types env_to_policy_features preprocess_observation",
        "lerobot.common.evaluation.tasks": "close_envs",
    },
    "lerobot.envs": {
        "lerobot.common.envs.configs": "EnvConfig AlohaEnv PushtEnv XarmEnv KochEnv",
        "lerobot.common.envs.hil_serl": "HILSerlRobotEnvConfig LiberoEnv",
        "lerobot.common.envs.task_envs": "make_env make_env_config make_env_pre_post_processors",
        "lerobot.common.envs.utils": "check_env_attributes_and_types env_to_policy_features preprocess_observation",
        "lerobot.common.evaluation.tasks": "close_envs",
    },
    "lerobot.common.envs.configs": {
        "lerobot.common.envs.hil_serl": (
            "ImagePreprocessingConfig RewardClassifierConfig InverseKinematicsConfig ObservationConfig GripperConfig "
            "ResetConfig HILSerlProcessorConfig HILSerlRobotEnvConfig LiberoEnv"
        ),
    },
    "lerobot.common.envs.utils": {"lerobot.common.evaluation.tasks": "close_envs"},
    "lerobot.common.utils": {
        "lerobot.common.constants": "ACTION DONE OBS_ENV_STATE OBS_IMAGE OBS_IMAGES OBS_STATE OBS_STR REWARD",
        "lerobot.common.datasets.utils": "DEFAULT_FEATURES",
        "lerobot.common.datasets.factory": "IMAGENET_STATS",
        "lerobot.common.utils.import_utils": "is_package_available require_package",
    },
    "lerobot.common.constants": {
        "lerobot.common.datasets.utils": "DEFAULT_FEATURES",
        "lerobot.common.datasets.factory": "IMAGENET_STATS",
    },
    "lerobot.common.utils.device": {"lerobot.common.utils.utils": "get_safe_dtype"},
    "lerobot.common.utils.io_utils": {
        "lerobot.common.evaluation.video": "write_video",
        "lerobot.common.utils.io_utils": "load_json=read_json",
    },
    "lerobot.common.utils.utils": {
        "lerobot.common.robot_devices.speech": "say log_say",
        "lerobot.common.utils.terminal": (
            "enter_pressed move_cursor_up get_elapsed_time_in_days_hours_minutes_seconds "
            "SuppressProgressBars TimerManager"
        ),
        "lerobot.common.utils.io_utils": "flatten_dict unflatten_dict",
        "lerobot.common.datasets.utils": "cycle",
    },
    "lerobot.processor.hil_processor": {
        "lerobot.common.processor.images": "ImageCropResizeProcessorStep",
        "lerobot.common.processor.interaction": (
            "AddTeleopActionAsComplimentaryDataStep AddTeleopEventsAsInfoStep GripperPenaltyProcessorStep "
            "InterventionActionProcessorStep TimeLimitProcessorStep TeleopEvents TELEOP_ACTION_KEY "
            "DISCRETE_PENALTY_KEY GRIPPER_KEY"
        ),
        "lerobot.common.processor.supervision": (
            "GymHILAdapterProcessorStep HasTeleopEvents RewardClassifierProcessorStep"
        ),
    },
    "lerobot.teleoperators.utils": {"lerobot.common.processor.interaction": "TeleopEvents"},
    "lerobot.common.robot_devices.utils": {"lerobot.common.robot_devices.utils": "precise_sleep=busy_wait"},
    "lerobot.common.robot_devices.control_utils": {
        "lerobot.common.robot_devices.keyboard": "is_headless init_keyboard_listener",
        "lerobot.common.robot_devices.pace": "log_control_info",
    },
    "lerobot.common.robot_devices.robots": {
        "lerobot.common.robot_devices.robots.configs": "RobotConfig KochRobotConfig",
        "lerobot.common.robot_devices.robots.utils": "Robot make_robot_from_config",
    },
    "lerobot.cameras": {
        "lerobot.common.robot_devices.cameras.base": "Camera",
        "lerobot.common.robot_devices.cameras.configs": "CameraConfig",
        "lerobot.common.robot_devices.cameras.utils": "make_cameras_from_configs",
    },
    "lerobot.scripts.train": {"lerobot.common.training.update": "update_policy"},
    "lerobot.cameras.opencv": {
        "lerobot.common.robot_devices.cameras.opencv": "OpenCVCamera",
        "lerobot.common.robot_devices.cameras.configs": "OpenCVCameraConfig",
    },
    "lerobot.cameras.realsense": {
        "lerobot.common.robot_devices.cameras.intelrealsense": "RealSenseCamera=IntelRealSenseCamera",
        "lerobot.common.robot_devices.cameras.configs": "RealSenseCameraConfig=IntelRealSenseCameraConfig",
    },
    "lerobot.cameras.opencv.configuration_opencv": {
        "lerobot.common.robot_devices.cameras.configs": "OpenCVCameraConfig",
    },
    "lerobot.cameras.realsense.configuration_realsense": {
        "lerobot.common.robot_devices.cameras.configs": "RealSenseCameraConfig=IntelRealSenseCameraConfig",
    },
}

# Prefixes whose contents have another API here, and where to look instead.
ELSEWHERE = {
    "lerobot.cameras": "lerobot.common.robot_devices.cameras",
    "lerobot.common.robot_devices.motors": "lerobot.common.robot_devices.motors.dynamixel",
    "lerobot.common.robot_devices.robots": "lerobot.common.robot_devices.robots.manipulator",
    "lerobot.teleoperators": "lerobot.common.robot_devices.robots.manipulator",
}


def install() -> None:
    """Make the names importable; called by `lerobot/__init__.py`."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())
        sys.meta_path.append(_LastFinder())


def here(name: str) -> str:
    """The module of this package that a module name means; names without a row mean themselves."""
    head, tail = name, ""
    while head:
        if head in _TABLE:
            return _TABLE[head] + tail
        head, _, leaf = head.rpartition(".")
        tail = f".{leaf}{tail}"
    return name


def _make_table() -> dict[str, str]:
    """MODULES, with every row inside a mapped package also under the package's name here.

    `from lerobot.processor import device_processor` asks for `lerobot.common.processor.device_processor`,
    since that is the name of the package's module object.
    """
    table = dict(MODULES)
    for name, module in MODULES.items():
        package, _, leaf = name.rpartition(".")
        table.setdefault(f"{MODULES.get(package, package)}.{leaf}", module)
    return table


_TABLE = _make_table()
_PACKAGES = {name.rpartition(".")[0] for name in [*_TABLE, *NAMES]}


def offered() -> dict[str, dict[str, tuple[str, str]]]:
    """Module -> name -> (module where it stands, its name there)."""
    table: dict[str, dict[str, tuple[str, str]]] = {}
    for module, sources in NAMES.items():
        names = table.setdefault(here(module), {})
        for source, words in sources.items():
            for word in words.split():
                new, _, old = word.partition("=")
                names[new] = (source, old or new)
    return table


_OFFERED = offered()


class _Finder(MetaPathFinder):
    """Asked before the file system is searched, where a new name would give a second copy of a module."""

    def find_spec(self, fullname: str, path=None, target=None) -> ModuleSpec | None:
        if not fullname.startswith("lerobot."):
            return None
        module = here(fullname)
        if module != fullname:
            found = _find(module)
            return found and ModuleSpec(fullname, _AliasLoader(module), origin=found.origin)
        if fullname not in _OFFERED and fullname not in _PACKAGES:
            return None
        spec = PathFinder.find_spec(fullname, path)
        if spec is None:
            return ModuleSpec(fullname, _NamesLoader(), is_package=fullname in _PACKAGES)
        spec.loader = _OfferingLoader(spec.loader)
        return spec


class _LastFinder(MetaPathFinder):
    """Asked when nothing else knows a name: says what the nearest one is."""

    def find_spec(self, fullname: str, path=None, target=None) -> None:
        if not fullname.startswith("lerobot."):
            return
        # Its own name would make `from package import name` fall back to a message without the nearest name.
        raise ModuleNotFoundError(_explain(fullname), name=f"{fullname} ({here(fullname)})")


class _AliasLoader(Loader):
    """Gives the module of another name."""

    def __init__(self, module: str):
        self.module = module

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        module = importlib.import_module(self.module)
        self.spec = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self.spec  # the import system has put the one of the new name there
        _offer(module)

    def get_code(self, fullname: str) -> Any:
        """The code for `python -m`."""
        return importlib.util.find_spec(self.module).loader.get_code(self.module)


class _OfferingLoader(Loader):
    """Loads a module as its own loader does and adds the names of the table."""

    def __init__(self, loader: Loader):
        self.loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        module.__loader__ = module.__spec__.loader = self.loader
        self.loader.exec_module(module)
        _offer(module)

    def get_code(self, fullname: str) -> Any:
        """The code for `python -m`."""
        return self.loader.get_code(fullname)


class _NamesLoader(Loader):
    """Makes a module that has only names, or modules, of the tables."""

    def create_module(self, spec: ModuleSpec) -> None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        _offer(module)


def _find(module: str) -> ModuleSpec | None:
    try:
        return importlib.util.find_spec(module)
    except ModuleNotFoundError as e:
        if (e.name or "").startswith("lerobot."):
            return None
        raise  # a dependency of the package above


def _offer(module: ModuleType) -> None:
    """Let a module resolve the names of the table, and explain the ones that it lacks."""
    own = module.__dict__.get("__getattr__")
    if getattr(own, "_offers", False):
        return
    names = _OFFERED.get(module.__name__, {})

    def resolve(name: str) -> Any:
        if name in names:
            source, there = names[name]
            value = getattr(importlib.import_module(source), there)
            setattr(module, name, value)
            return value
        if own is not None:
            return own(name)
        missing = f"{module.__name__}.{name}"
        if "__path__" not in vars(module) and _in_from_import(sys._getframe(1)):
            raise ImportError(_explain(missing), name=module.__name__)
        raise AttributeError(f"module '{module.__name__}' has no attribute '{name}'")

    resolve._offers = True
    module.__getattr__ = resolve


def _in_from_import(frame) -> bool:
    """Whether a frame is at `from module import name`, which replaces the text of an AttributeError by its
    own.
    """
    import dis

    return dis.opname[frame.f_code.co_code[frame.f_lasti]] == "IMPORT_FROM"


def _explain(fullname: str) -> str:
    meant = here(fullname)
    for prefix, place in ELSEWHERE.items():
        if meant == prefix or meant.startswith(prefix + "."):
            return f"No module named '{fullname}': hardware has another interface here, see {place}."
    package, _, leaf = fullname.rpartition(".")
    nearest = _nearest(here(package), leaf)
    return f"There is no '{fullname}'" + (f"; the nearest name is '{nearest}'." if nearest else ".")


def _nearest(package: str, leaf: str) -> str | None:
    """The existing name that is most like `leaf` in a module or package, or like its last part anywhere
    above.
    """
    import difflib
    import pkgutil

    module = sys.modules.get(package)
    if module is None:
        return None
    names = {name for name in vars(module) if not name.startswith("_")} | set(_OFFERED.get(package, {}))
    names |= {m.name for m in pkgutil.iter_modules(getattr(module, "__path__", []))}
    names |= {name.rpartition(".")[2] for name in _TABLE if name.rpartition(".")[0] == package}
    close = difflib.get_close_matches(leaf, sorted(names), n=1, cutoff=0)
    return f"{package}.{close[0]}" if close else None
