"""Evaluate a checkpoint in an environment: success rate with its interval, videos, eval_info.json.

python lerobot/scripts/eval.py --policy.path=CHECKPOINT --env.type=koch --eval.use_async_envs=true
"""

import logging

from lerobot.common.evaluation.evaluate import evaluate, format_result
from lerobot.common.evaluation.rollout import eval_policy, rollout
from lerobot.common.evaluation.tasks import (
    ACC_KEYS,
    TaskMetrics,
    close_envs,
    eval_one,
    eval_policy_all,
    run_one,
)
from lerobot.common.policies.factory import make_policy, make_pre_post_processors
from lerobot.common.utils.io_utils import write_json
from lerobot.common.utils.utils import init_logging, run_command
from lerobot.configs import parser
from lerobot.configs.eval import EvalPipelineConfig


@parser.wrap()
def eval_main(cfg: EvalPipelineConfig) -> dict:
    """Run the evaluation, print it, and write `eval_info.json` and `videos/` below the output folder.

    Raises ValueError without a checkpoint, or if the environment does not fit it.
    """
    if cfg.policy is None or not cfg.policy.pretrained_path:
        raise ValueError("No checkpoint given: set --policy.path=CHECKPOINT (a folder with config.json, or a hub id).")
    policy = make_policy(cfg.policy, env_cfg=cfg.env)
    renamed = {"rename_observations_processor": {"rename_map": cfg.rename_map}} if cfg.rename_map else {}
    preprocessor, postprocessor = make_pre_post_processors(
        cfg.policy, pretrained_path=cfg.policy.pretrained_path, preprocessor_overrides=renamed
    )
    result = evaluate(
        cfg.env,
        cfg.eval,
        policy,
        preprocessor,
        postprocessor,
        videos_dir=cfg.output_dir / "videos",
        n_videos=cfg.n_videos,
        start_seed=cfg.first_seed,
    )
    write_json(result, cfg.output_dir / "eval_info.json", indent=2)
    print(format_result(result, f"{cfg.policy.type} {cfg.policy.pretrained_path} in {cfg.env.type} {cfg.env.task}"))
    print(f"  written  {cfg.output_dir}/eval_info.json" + (" and videos/" if result.get("video_paths") else ""))
    return result


def main() -> None:
    """The command."""
    init_logging()
    logging.getLogger().setLevel(logging.WARNING)
    run_command(eval_main)


__all__ = [
    "ACC_KEYS",
    "TaskMetrics",
    "close_envs",
    "eval_main",
    "eval_one",
    "eval_policy",
    "eval_policy_all",
    "main",
    "rollout",
    "run_one",
]

if __name__ == "__main__":
    main()
