"""The shell scripts that a user runs, as far as they can be run without installing anything."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCRIPTS = [
    "koch_train.sh",
    "koch_train_smolvla.sh",
    "tests/run.sh",
    ".ci/run",
    ".ci/docs",
    "tools/bootstrap.sh",
    "tools/koch_train.sh",
]


def bash(command: str, cwd=ROOT):
    environment = {"PATH": "/usr/bin:/bin"}
    return subprocess.run(["bash", "-c", command], cwd=cwd, capture_output=True, text=True, env=environment)


@pytest.mark.parametrize("script", SCRIPTS)
def test_syntax(script):
    assert bash(f"bash -n {script}").returncode == 0


@pytest.mark.parametrize("script", [s for s in SCRIPTS if not s.startswith("tools/")])
def test_scripts_that_are_run_stop_at_the_first_error(script):
    assert "set -euo pipefail" in (ROOT / script).read_text()


@pytest.fixture
def checkout(tmp_path):
    """A copy of the scripts with an environment that counts as installed, whose Python prints its arguments."""
    root = tmp_path / "checkout"
    shutil.copytree(ROOT / "tools", root / "tools")
    shutil.copytree(ROOT / "lerobot" / "configs" / "presets", root / "lerobot" / "configs" / "presets")
    for name in ("koch_train.sh", "koch_train_smolvla.sh", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, root)
    (root / ".venv" / "bin").mkdir(parents=True)
    python = root / ".venv" / "bin" / "python"
    python.write_text('#!/bin/sh\n[ "$1" = -c ] && exit 1\nprintf "%s\\n" "$@"\n')
    python.chmod(0o755)
    bash("source tools/bootstrap.sh; install_all() { :; }; bootstrap smolvla sim", cwd=root)
    return root


def test_the_main_job_chooses_the_mini_preset_without_a_gpu_from_any_folder(checkout, tmp_path):
    run = bash(f"bash {checkout}/koch_train_smolvla.sh --steps=7", cwd=tmp_path)
    words = run.stdout.splitlines()
    assert run.returncode == 0, run.stderr
    assert {"--preset=smolvla_mini", "--steps=7", f"--dataset.root={checkout}/grasp_dataset"} <= set(words)
    assert any(w.startswith(f"--output_dir={checkout}/outputs/train/koch_smolvla/") for w in words)
    assert len(list((checkout / "logs").iterdir())) == 1


def test_a_first_word_names_another_policy(checkout):
    run = bash("bash koch_train.sh act_dinov2 --steps=7", cwd=checkout)
    assert run.returncode == 0, run.stderr
    assert {"--preset=act_dinov2_mini", "--steps=7", "--job_name=koch_act_dinov2"} <= set(run.stdout.splitlines())
    assert "--preset=act_mini" in bash("bash koch_train.sh", cwd=checkout).stdout.splitlines()


def test_an_unknown_word_is_refused_with_those_that_exist(checkout):
    run = bash("bash koch_train.sh act_dino", cwd=checkout)
    assert run.returncode != 0 and not (checkout / "logs").exists()
    assert "'act_dino'" in run.stderr and {"act", "act_dinov2", "tdmpc."} & set(run.stderr.split())


def test_what_the_user_chooses_is_not_chosen_again(checkout):
    flags = "--policy.path=here --dataset.root=/data --output_dir=/out --dataset.eval_split=0"
    words = bash(f"bash koch_train.sh {flags}", cwd=checkout).stdout.splitlines()
    assert set(flags.split()) <= set(words)
    chosen = ("--preset", "--dataset.root", "--output_dir", "--dataset.eval_split")
    assert sum(w.startswith(chosen) for w in words) == 3


def test_a_run_that_is_continued_keeps_its_own_settings(checkout):
    words = bash("bash koch_train.sh --resume=true --output_dir=/out", cwd=checkout).stdout.splitlines()
    assert [w for w in words if w.startswith("--")] == ["--resume=true", "--output_dir=/out"]


def test_requirements_are_those_of_the_package():
    printed = subprocess.run(
        [sys.executable, ROOT / "tools" / "requirements.py", "sim"], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert any(line.startswith("mujoco") for line in printed)
    assert sum(line.startswith("opencv-python") for line in printed) == 1
