"""From a recording to a number, by the commands a user types: record, train, run on the arm, evaluate."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("mujoco")
pytest.importorskip("dynamixel_sdk")

from lerobot.common.datasets.lerobot_dataset import LeRobotDataset

REPO = Path(__file__).parents[2]
SIZE = {"width": 64, "height": 48}
CAMERAS = json.dumps({name: {"type": "sim", "name": name, **SIZE} for name in ("laptop", "phone")})
ARM = ["--robot.type=koch_sim", "--robot.time=lockstep", f"--robot.cameras={CAMERAS}", "--control.type=record"]
ARM += ["--control.single_task=scene", "--control.warmup_time_s=0", "--control.push_to_hub=false"]
ARM += ["--control.play_sounds=false"]
MODEL = ["--policy.type=act", "--policy.device=cpu", "--policy.chunk_size=10", "--policy.n_action_steps=10"]
MODEL += ["--policy.dim_model=16", "--policy.n_heads=2", "--policy.dim_feedforward=16", "--policy.n_encoder_layers=1"]
MODEL += ["--policy.n_vae_encoder_layers=1", "--policy.latent_dim=4", "--policy.backbone_width=8"]
MODEL += ["--policy.pretrained_backbone_weights=null"]


def command(script: str, *flags: str, cwd: Path) -> str:
    """Run a script of `lerobot/scripts` as a user does; its output."""
    environment = {**os.environ, "PYTHONPATH": str(REPO), "OMP_NUM_THREADS": "1"}
    full = [sys.executable, str(REPO / "lerobot" / "scripts" / script), *flags]
    done = subprocess.run(full, capture_output=True, text=True, cwd=cwd, env=environment, timeout=900)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout + done.stderr


@pytest.mark.slow
def test_record_train_run_and_evaluate_by_commands(tmp_path):
    recording, run = tmp_path / "cubes", tmp_path / "run"
    command(
        "control_robot.py", *ARM, "--control.repo_id=me/cubes", f"--control.root={recording}",
        "--control.num_episodes=2", "--control.episode_time_s=15", cwd=tmp_path,
    )  # fmt: skip
    reports = [json.loads(line) for line in (tmp_path / "cubes.control_report.jsonl").read_text().splitlines()]
    assert [report["success"] for report in reports] == [True, True]  # the expert moves the leader

    command(
        "train.py", *MODEL, f"--dataset.root={recording}", f"--output_dir={run}", "--steps=3", "--save_freq=3",
        "--batch_size=2", "--num_workers=0", cwd=tmp_path,
    )  # fmt: skip
    checkpoint = run / "checkpoints" / "last" / "pretrained_model"

    table = command(
        "control_robot.py", *ARM, "--robot.seed=10000", "--control.repo_id=me/eval_cubes",
        f"--control.root={tmp_path / 'eval_cubes'}", "--control.num_episodes=2", "--control.episode_time_s=1",
        f"--control.policy.path={checkpoint}", cwd=tmp_path,
    )  # fmt: skip
    assert "  ready" in table and (tmp_path / "outputs/ghost/eval_cubes").is_dir()
    driven = LeRobotDataset("me/eval_cubes", root=tmp_path / "eval_cubes")
    assert (driven.num_episodes, len(driven)) == (2, 60) and driven.table["action"].isfinite().all()

    command(
        "eval.py", f"--policy.path={checkpoint}", "--env.type=koch", "--eval.n_episodes=2", "--eval.batch_size=1",
        "--env.episode_length=30", "--env.observation_width=64", "--env.observation_height=48", "--n_videos=0",
        f"--output_dir={tmp_path / 'eval'}", cwd=tmp_path,
    )  # fmt: skip
    info = json.loads((tmp_path / "eval" / "eval_info.json").read_text())
    assert [episode["seed"] for episode in info["per_episode"]] == [10_000, 10_001]
