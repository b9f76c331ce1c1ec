"""Which module or object of this package a public name of newer LeRobot releases means; read by `import_adapter`.

`MODULES` maps a module name, or a prefix of names, to the module it means here. `NAMES` lists names that a module
offers beside what stands in its own file. `ELSEWHERE` and `ABSENT` are for what is not here: where to look instead.
"""

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
    "lerobot.processor.env_processor": "lerobot.common.processor.env_steps",
    "lerobot.rl.joint_observations_processor": "lerobot.common.processor.interaction",
    "lerobot.processor.policy_robot_bridge": "lerobot.common.processor.robot_actions",
    "lerobot.processor.joint_observations_processor": "lerobot.common.processor.interaction",
    "lerobot.datasets.io_utils": "lerobot.common.datasets.utils",
    "lerobot.datasets.pipeline_features": "lerobot.common.datasets.feature_utils",
    "lerobot.utils.feature_utils": "lerobot.common.datasets.feature_utils",
    "lerobot.utils.control_utils": "lerobot.common.robot_devices.control_utils",
    "lerobot.common.control_utils": "lerobot.common.robot_devices.control_utils",
    "lerobot.utils.errors": "lerobot.common.robot_devices.utils",
    "lerobot.utils.decorators": "lerobot.common.robot_devices.decorators",
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
    "lerobot.async_inference": "lerobot.common.inference_server",
    "lerobot.async_inference.policy_server": "lerobot.scripts.policy_server",
    "lerobot.async_inference.robot_client": "lerobot.scripts.robot_client",
    "lerobot.scripts.server.policy_server": "lerobot.scripts.policy_server",
    "lerobot.scripts.server.robot_client": "lerobot.scripts.robot_client",
    "lerobot.scripts.server.configs": "lerobot.common.inference_server.configs",
    "lerobot.find_port": "lerobot.scripts.find_motors_bus_port",
    "lerobot.find_joint_limits": "lerobot.scripts.lerobot_find_joint_limits",
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
    "lerobot.common.policies.pi0": {
        "lerobot.common.policies.pi0.configuration_pi0": "PI0Config",
        "lerobot.common.policies.pi0.modeling_pi0": "PI0Policy",
        "lerobot.common.policies.pi0.processor_pi0": "make_pi0_pre_post_processors",
    },
    "lerobot.common.processor.tokenizer": {
        "lerobot.common.processor.action_tokenizer": "ActionTokenizerProcessorStep",
        "lerobot.common.constants": "ACTION_TOKENS ACTION_TOKEN_MASK",
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
        "lerobot.common.datasets.utils": (
            "dataset_to_policy_features get_delta_indices check_delta_timestamps create_empty_dataset_info "
            "validate_frame"
        ),
        "lerobot.common.datasets.hf_tables": "get_hf_features_from_features",
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
        "lerobot.common.datasets.backward_compatibility": (
            "FUTURE_MESSAGE V30_MESSAGE CompatibilityError BackwardCompatibilityError ForwardCompatibilityError"
        ),
    },
    "lerobot.common.datasets.video_utils": {
        "lerobot.common.datasets.video_files": "concatenate_video_files get_video_duration_in_s",
        "lerobot.common.datasets.video_api": (
            "VideoFrame VideoDecoderCache VideoEncodingManager decode_video_frames_torchcodec "
            "decode_video_frames_torchvision get_audio_info get_image_pixel_channels"
        ),
    },
    "lerobot.configs": {
        "lerobot.configs.default": "DatasetConfig EvalConfig JobConfig PeftConfig WandBConfig",
        "lerobot.common.robot_devices.newer_configs": "DatasetRecordConfig",
        "lerobot.configs.policies": "PreTrainedConfig",
        "lerobot.configs.types": (
            "FeatureType NormalizationMode PipelineFeatureType PolicyFeature RTCAttentionSchedule"
        ),
    },
    "lerobot.common.optim": {
        "lerobot.common.optim.optimizers": (
            "OptimizerConfig AdamConfig AdamWConfig SGDConfig MultiAdamConfig XVLAAdamWConfig save_optimizer_state "
            "load_optimizer_state"
        ),
        "lerobot.common.optim.factory": "make_optimizer_and_scheduler",
        "lerobot.common.optim.schedulers": (
            "LRSchedulerConfig DiffuserSchedulerConfig VQBeTSchedulerConfig "
            "CosineDecayWithWarmupSchedulerConfig ConstantWithWarmupSchedulerConfig "
            "CosineAnnealingWithWarmupSchedulerConfig save_scheduler_state load_scheduler_state"
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
        "lerobot.common.envs.hub_envs": "HubEnvConfig IsaaclabArenaEnv MetaworldEnv",
        "lerobot.common.envs.task_envs": "make_env make_env_config make_env_pre_post_processors",
        "lerobot.common.envs.utils": "check_env_attributes_and_types env_to_policy_features preprocess_observation",
        "lerobot.common.evaluation.tasks": "close_envs",
    },
    "lerobot.common.envs.configs": {
        "lerobot.common.envs.hil_serl": (
            "ImagePreprocessingConfig RewardClassifierConfig InverseKinematicsConfig ObservationConfig GripperConfig "
            "ResetConfig HILSerlProcessorConfig HILSerlRobotEnvConfig LiberoEnv"
        ),
        "lerobot.common.envs.hub_envs": "HubEnvConfig IsaaclabArenaEnv MetaworldEnv",
    },
    "lerobot.common.envs.utils": {"lerobot.common.evaluation.tasks": "close_envs"},
    "lerobot.common.utils": {
        "lerobot.common.constants": "ACTION DONE OBS_ENV_STATE OBS_IMAGE OBS_IMAGES OBS_STATE OBS_STR REWARD",
        "lerobot.common.datasets.utils": "DEFAULT_FEATURES",
        "lerobot.common.datasets.factory": "IMAGENET_STATS",
        "lerobot.common.utils.import_utils": "is_package_available require_package",
        "lerobot.common.utils.device": (
            "auto_select_torch_device get_safe_torch_device is_torch_device_available is_amp_available get_safe_dtype"
        ),
        "lerobot.common.robot_devices.utils": "DeviceNotConnectedError DeviceAlreadyConnectedError",
        "lerobot.common.robot_devices.decorators": "check_if_not_connected check_if_already_connected",
    },
    "lerobot.common.constants": {
        "lerobot.common.datasets.utils": "DEFAULT_FEATURES",
        "lerobot.common.datasets.factory": "IMAGENET_STATS",
        "lerobot.common.envs.hil_serl": (
            "LIBERO_KEY_EEF_POS LIBERO_KEY_EEF_QUAT LIBERO_KEY_EEF_MAT LIBERO_KEY_EEF_AXISANGLE "
            "LIBERO_KEY_GRIPPER_QPOS LIBERO_KEY_GRIPPER_QVEL LIBERO_KEY_JOINTS_POS LIBERO_KEY_JOINTS_VEL "
            "LIBERO_KEY_PIXELS_AGENTVIEW LIBERO_KEY_PIXELS_EYE_IN_HAND"
        ),
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

# What is not part of this project: (what it is, the nearest thing that exists), by name or prefix of names.
ABSENT = {
    "lerobot.policies.pi05": ("pi0.5", "lerobot.policies.pi0"),
    "lerobot.policies.PI05Config": ("pi0.5", "lerobot.policies.PI0Config"),
    "lerobot.policies.pi0_fast": ("pi0-FAST", "lerobot.policies.pi0"),
    "lerobot.policies.pi0fast": ("pi0-FAST", "lerobot.policies.pi0"),
    "lerobot.policies.PI0FastConfig": ("pi0-FAST", "lerobot.policies.PI0Config"),
    "lerobot.policies.PI0FASTConfig": ("pi0-FAST", "lerobot.policies.PI0Config"),
    "lerobot.policies.sac": ("SAC", "lerobot.policies.tdmpc"),
    "lerobot.policies.SACConfig": ("SAC", "lerobot.policies.TDMPCConfig"),
    "lerobot.policies.gaussian_actor": ("SAC", "lerobot.policies.tdmpc"),
    "lerobot.policies.rtc.debug_visualizer": ("a plot of guidance", "lerobot.policies.rtc.debug_tracker"),
    "lerobot.policies.groot": ("GR00T", "lerobot.policies.smolvla"),
    "lerobot.policies.GrootConfig": ("GR00T", "lerobot.policies.SmolVLAConfig"),
    "lerobot.policies.xvla": ("X-VLA", "lerobot.policies.smolvla"),
    "lerobot.policies.XVLAConfig": ("X-VLA", "lerobot.policies.SmolVLAConfig"),
    "lerobot.policies.wall_x": ("WALL-X", "lerobot.policies.smolvla"),
    "lerobot.policies.WallXConfig": ("WALL-X", "lerobot.policies.SmolVLAConfig"),
    "lerobot.policies.sarm": ("SARM", "lerobot.policies.act"),
    "lerobot.policies.ActionInterpolator": ("ActionInterpolator", "lerobot.common.player"),
    "lerobot.policies.pi0.modeling_pi0.PI0Pytorch": (
        "the rewritten pi0",
        "lerobot.policies.pi0.modeling_pi0.PI0Policy",
    ),
    "lerobot.processor.RenderMessagesStep": ("a chat template", "lerobot.processor.TokenizerProcessorStep"),
    "lerobot.rl": ("reinforcement learning on the robot (HIL-SERL)", "lerobot.policies.tdmpc"),
    "lerobot.rewards": ("training a reward model", "lerobot.processor.RewardClassifierProcessorStep"),
    "lerobot.transport": ("the gRPC transport", "lerobot.common.inference_server"),
    "lerobot.async_inference.helpers": ("the gRPC server's helpers", "lerobot.common.inference_server"),
    "lerobot.async_inference.constants": ("the gRPC server's helpers", "lerobot.common.inference_server.configs"),
    "lerobot.rollout": ("the strategies of lerobot-rollout", "lerobot.scripts.lerobot_rollout"),
    "lerobot.scripts.lerobot_setup_can": ("lerobot-setup-can", "lerobot.scripts.lerobot_setup_motors"),
    "lerobot.scripts.lerobot_train_tokenizer": (
        "training a FAST tokenizer",
        "lerobot.processor.ActionTokenizerProcessorStep",
    ),
    "lerobot.scripts.lerobot_annotate": ("annotation of sub-tasks", "lerobot.scripts.lerobot_edit_dataset"),
    "lerobot.annotations": ("annotation of sub-tasks", "lerobot.scripts.lerobot_edit_dataset"),
    "lerobot.data_processing": ("annotation of sub-tasks", "lerobot.scripts.lerobot_edit_dataset"),
    "lerobot.jobs": ("training as a remote job", "lerobot.scripts.lerobot_train"),
    "lerobot.model": ("a kinematic model", "lerobot.common.envs.koch_sim"),
    "lerobot.utils.rabc": ("RA-BC sample weighting", "lerobot.optim"),
    "lerobot.envs.libero": ("LIBERO's simulation", "lerobot.envs.configs.LiberoEnv"),
    "lerobot.envs.metaworld": ("MetaWorld's simulation", "lerobot.envs.configs.MetaworldEnv"),
    "lerobot.datasets.video_utils.StreamingVideoEncoder": (
        "StreamingVideoEncoder",
        "lerobot.datasets.video_utils.VideoEncodingManager",
    ),
    "lerobot.datasets.compute_sampler_state": ("compute_sampler_state", "lerobot.datasets.EpisodeAwareSampler"),
    "lerobot.datasets.make_train_eval_datasets": ("make_train_eval_datasets", "lerobot.datasets.make_dataset"),
    "lerobot.datasets.reencode_dataset": ("reencode_dataset", "lerobot.scripts.lerobot_edit_dataset"),
    "lerobot.datasets.recompute_stats": ("recompute_stats", "lerobot.common.datasets.recompute"),
    "lerobot.datasets.convert_image_to_video_dataset": (
        "convert_image_to_video_dataset",
        "lerobot.scripts.lerobot_edit_dataset",
    ),
    "lerobot.optim.load_optimizer_state_dict": ("load_optimizer_state_dict", "lerobot.optim.load_optimizer_state"),
}
