"""Is this machine set up? Imports, torch and its device, decoders, disk, packages and offline caches."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from packaging.version import Version

from lerobot.common.checks.finding import Finding
from lerobot.common.constants import HF_LEROBOT_HOME

OLDEST_PYTHON, OLDEST_TORCH = (3, 10), Version("2.6")
LEAST_FREE_GB = 5.0
# Packages that a policy needs beside the base ones -> the extra that brings them.
POLICY_PACKAGES = {"smolvla": {"transformers": "smolvla"}, "pi0": {"transformers": "pi0"}}
DECODERS = {"h264": ("h264",), "hevc": ("hevc",), "av1": ("libdav1d", "av1")}  # codec -> what decodes it


def check_environment(device: str | None = None, output_dir: str | Path = ".") -> list[Finding]:
    """Everything that does not depend on dataset or checkpoint; `device` is the one that is wanted (None: any)."""
    imported = Path(importlib.util.find_spec("lerobot").origin).parent
    return [
        *check_python(sys.version_info[:3]),
        *check_import_clash(imported, sys.path),
        *check_torch(torch.__version__, torch.cuda.is_available(), driver_version(), device),
        *check_decoders(available_decoders()),
        *check_disk(output_dir),
        *check_cache_folder(HF_LEROBOT_HOME),
    ]


def machine(output_dir: str | Path = ".") -> list[str]:
    """What was looked at: which lerobot, the versions that compute, the device, the room on the disk, the caches."""
    import lerobot
    from lerobot.common.training.record import versions

    found = versions()
    names = ("python", "torch", "numpy", "av", "transformers", "accelerate", "huggingface_hub")
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    ffmpeg = shutil.which("ffmpeg")
    above = next(p for p in (Path(output_dir), *Path(output_dir).absolute().parents) if p.exists())
    offline = " (HF_HUB_OFFLINE)" if os.environ.get("HF_HUB_OFFLINE", "0").lower() in ("1", "true", "yes") else ""
    return [
        f"lerobot {lerobot.__version__} from {Path(lerobot.__file__).parent}",
        ", ".join(f"{name} {found[name]}" for name in names if name in found),
        f"GPU: {', '.join(gpus) or 'none'}; ffmpeg: {ffmpeg or 'none (not needed: PyAV decodes)'}",
        f"{shutil.disk_usage(above).free / 2**30:.0f} GiB free in {above.absolute()}",
        f"caches: {HF_LEROBOT_HOME}{offline}",
    ]


def check_python(version: Sequence[int]) -> list[Finding]:
    """The Python release."""
    if tuple(version[:2]) >= OLDEST_PYTHON:
        return []
    found = ".".join(map(str, version))
    message = f"Python {found} runs; 3.10 or newer is needed."
    return [Finding("env.python", "error", message, evidence={"python": found}, fix="bash tools/bootstrap.sh")]


def check_import_clash(imported: Path, path: Sequence[str], cwd: Path | None = None) -> list[Finding]:
    """Which `lerobot` is imported, and whether others could be: a second one on the path, or the one stood in."""
    findings, cwd = [], cwd or Path.cwd()
    places = dict.fromkeys(Path(p or cwd).resolve() / "lerobot" for p in path)
    others = [p for p in places if (p / "__init__.py").is_file() and p != imported.resolve()]
    if others:
        findings.append(
            Finding(
                "env.second_lerobot",
                "error",
                f"lerobot is imported from {imported}, and there is another one in {others[0]}: which of them a "
                "command uses depends on the folder it is started in.",
                evidence={"imported": str(imported), "others": [str(p) for p in others]},
                fix=f"{sys.executable} -m pip uninstall lerobot; {sys.executable} -m pip install -e {imported.parent}",
            )
        )
    checkout = cwd / "lerobot" / "__init__.py"
    if checkout.is_file() and checkout.parent.resolve() != imported.resolve() and not others:
        findings.append(
            Finding(
                "env.other_checkout",
                "warning",
                f"You are in {cwd}, but lerobot is imported from {imported}: changes made here have no effect.",
                evidence={"imported": str(imported), "folder": str(cwd)},
                fix=f"{sys.executable} -m pip install -e {cwd}",
            )
        )
    return findings


def driver_version() -> str | None:
    """The version of the NVIDIA driver, None without one."""
    if shutil.which("nvidia-smi") is None:
        return None
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip().splitlines()[0] if done.returncode == 0 and done.stdout.strip() else None


def check_torch(version: str, cuda: bool, driver: str | None, device: str | None = None) -> list[Finding]:
    """The torch release, whether it sees the GPU that is there, and the device that is wanted."""
    evidence = {"torch": version, "cuda": cuda, "driver": driver}
    findings = []
    if Version(version.split("+")[0]) < OLDEST_TORCH:
        fix = f"{sys.executable} -m pip install 'torch>={OLDEST_TORCH}'"
        message = f"torch {version} is older than {OLDEST_TORCH}."
        findings.append(Finding("env.torch_version", "error", message, evidence=evidence, fix=fix))
    if driver and not cuda:
        built = "a CPU build" if "+cpu" in version else "built for a CUDA that this driver is too old for"
        message = f"An NVIDIA driver ({driver}) is there, but torch {version} cannot use the GPU: it is {built}."
        fix = f"{sys.executable} -m pip install --force-reinstall torch (see docs/install.md)"
        findings.append(Finding("env.gpu_unused", "error", message, evidence=evidence, fix=fix))
    elif device and device.startswith("cuda") and not cuda:
        message = f"--policy.device={device} is wanted and there is no usable GPU."
        findings.append(Finding("env.no_gpu", "error", message, evidence=evidence, fix="--policy.device=cpu"))
    return findings


def available_decoders() -> list[str]:
    """Of DECODERS those that PyAV can decode with."""
    import av

    return [name for name, decoders in DECODERS.items() if not av.codecs_available.isdisjoint(decoders)]


def check_decoders(available: Sequence[str]) -> list[Finding]:
    """The codecs of LeRobot datasets; PyAV brings its own FFmpeg, so the `ffmpeg` program is not needed."""
    missing = [name for name in DECODERS if name not in available]
    if not missing:
        return []
    message = f"PyAV cannot decode {', '.join(missing)}: videos in that format cannot be read."
    fix = f"{sys.executable} -m pip install --force-reinstall --only-binary=:all: av"
    return [Finding("env.decoder", "error", message, evidence={"missing": missing}, fix=fix)]


def check_disk(folder: str | Path, needed_gb: float = LEAST_FREE_GB) -> list[Finding]:
    """Free space where checkpoints go, and that it can be written."""
    folder = next(p for p in (Path(folder).absolute(), *Path(folder).absolute().parents) if p.exists())
    free = shutil.disk_usage(folder).free / 2**30
    findings = []
    if free < needed_gb:
        evidence = {"free_gb": round(free, 2), "needed_gb": round(needed_gb, 2), "folder": str(folder)}
        message = f"{folder} has {free:.1f} GiB free; about {needed_gb:.1f} GiB are needed."
        fix = "--output_dir=/LARGER/DISK or --save_total_limit=2"
        findings.append(Finding("env.disk", "error", message, evidence=evidence, fix=fix))
    if not os.access(folder, os.W_OK):
        message = f"{folder} cannot be written."
        fix = "--output_dir=/ANOTHER/FOLDER"
        findings.append(Finding("env.read_only", "error", message, evidence={"folder": str(folder)}, fix=fix))
    return findings


def check_cache_folder(folder: Path) -> list[Finding]:
    """Where datasets and stores are kept."""
    above = next(p for p in (folder, *folder.parents) if p.exists())
    if os.access(above, os.W_OK):
        return []
    message = f"{above} cannot be written, and downloaded datasets and frame stores go to {folder}."
    fix = "export HF_LEROBOT_HOME=/ANOTHER/FOLDER"
    return [Finding("env.cache_read_only", "error", message, evidence={"folder": str(folder)}, fix=fix)]


def check_packages(policy_type: str) -> list[Finding]:
    """The optional packages that a policy needs."""
    return [
        Finding(
            "env.package",
            "error",
            f"Policy '{policy_type}' needs {package}, which is not installed.",
            evidence={"package": package},
            fix=f'{sys.executable} -m pip install -e ".[{extra}]"',
        )
        for package, extra in POLICY_PACKAGES.get(policy_type, {}).items()
        if importlib.util.find_spec(package) is None
    ]
