#!/usr/bin/env python
"""Run a checkpoint over a recorded episode: predicted against recorded actions, as numbers and pictures.

    python lerobot/scripts/predict.py --policy.path=CHECKPOINT --dataset.root=grasp_dataset --episode=0

Any policy's checkpoint will do, of this project or of LeRobot, with processor files or with statistics inside
its weights. No arm and no simulation is needed.
"""

import dataclasses
import logging

from lerobot.common.datasets.factory import make_dataset
from lerobot.common.datasets.transforms import ImageTransformsConfig
from lerobot.common.datasets.utils import dataset_to_policy_features
from lerobot.common.evaluation.action_plots import save_action_plots
from lerobot.common.evaluation.evaluate import check_shapes, rename_map_of
from lerobot.common.evaluation.open_loop import OpenLoopReport, executed_steps, open_loop_error
from lerobot.common.policies.common.fast_inference import use_inference_mode
from lerobot.common.policies.factory import get_policy_class, make_pre_post_processors
from lerobot.common.utils.utils import init_logging, run_command
from lerobot.configs import parser
from lerobot.configs.predict import PredictPipelineConfig

PARQUET_NAME, JSON_NAME = "actions.parquet", "open_loop.json"


@parser.wrap()
def predict(cfg: PredictPipelineConfig) -> OpenLoopReport:
    """Predict, print the errors, write them with every action and a plot per joint; returns the report.

    Raises ValueError without a checkpoint, for an episode that is not there, or if the dataset does not fit.
    """
    if cfg.policy is None or not cfg.policy.pretrained_path:
        raise ValueError("No checkpoint given: set --policy.path=CHECKPOINT (a folder with config.json, or a hub id).")
    dataset = episode_dataset(cfg)
    path = cfg.policy.pretrained_path
    renamed = {"rename_observations_processor": {"rename_map": cfg.rename_map}} if cfg.rename_map else {}
    policy = get_policy_class(cfg.policy.type).from_pretrained(path, config=cfg.policy)
    use_inference_mode(policy)
    preprocessor, postprocessor = make_pre_post_processors(cfg.policy, path, preprocessor_overrides=renamed)
    names = rename_map_of(preprocessor)
    given = {names.get(k, k): tuple(f.shape) for k, f in dataset_to_policy_features(dataset.features).items()}
    check_shapes(given, cfg.policy, "dataset")
    report = open_loop_error(
        policy,
        preprocessor,
        postprocessor,
        dataset,
        every=cfg.every or executed_steps(cfg.policy),
        batch_size=cfg.batch_size,
        seed=cfg.seed,
    )
    print(report)
    write(cfg, report, dataset.fps)
    return report


def episode_dataset(cfg: PredictPipelineConfig):
    """The episode with the time windows that the policy trains with, pictures as they were recorded."""
    plain = dataclasses.replace(
        cfg.dataset, episodes=[cfg.episode], use_imagenet_stats=False, image_transforms=ImageTransformsConfig()
    )
    return make_dataset(dataclasses.replace(cfg, dataset=plain), return_uint8=True)


def write(cfg: PredictPipelineConfig, report: OpenLoopReport, fps: float) -> None:
    """The actions, the errors and the plots."""
    report.save_parquet(cfg.output_dir / PARQUET_NAME)
    report.save_json(cfg.output_dir / JSON_NAME)
    title = f"{cfg.policy.type} over episode {cfg.episode}"
    plots = save_action_plots(report, cfg.output_dir, cfg.episode, fps, title)
    print(f"  written  {cfg.output_dir}/: {PARQUET_NAME}, {JSON_NAME}, {', '.join(p.name for p in plots)}")


def main() -> None:
    """The command."""
    init_logging()
    logging.getLogger().setLevel(logging.WARNING)
    run_command(predict)


if __name__ == "__main__":
    main()
