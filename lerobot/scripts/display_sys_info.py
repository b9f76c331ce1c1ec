"""Print what this installation is made of, for a bug report; `lerobot-info` of LeRobot 0.4.

python lerobot/scripts/display_sys_info.py
"""

import importlib.metadata
import platform

from lerobot.__version__ import __version__
from lerobot.common.utils.import_utils import is_package_available

PACKAGE_NAME = "lerobot"


def get_package_version(package_name: str) -> str:
    """The installed version, or N/A."""
    try:
        return importlib.metadata.version(package_name)
    except importlib.metadata.PackageNotFoundError:
        return "N/A"


def get_ffmpeg_version() -> str:
    """The version of the FFmpeg inside PyAV, which reads and writes videos here."""
    import av

    return av.ffmpeg_version_info


def get_sys_info() -> dict[str, str]:
    """Name and version of each part."""
    import torch

    cuda = torch.cuda.is_available()
    return {
        "LeRobot version": __version__,
        "Platform": platform.platform(),
        "Python version": platform.python_version(),
        "Huggingface Hub version": get_package_version("huggingface_hub"),
        "Transformers version": get_package_version("transformers"),
        "Numpy version": get_package_version("numpy"),
        "FFmpeg version": get_ffmpeg_version(),
        "PyTorch version": torch.__version__,
        "Is PyTorch built with CUDA support?": str(torch.version.cuda is not None),
        "Cuda version": torch.version.cuda or "N/A",
        "GPU model": torch.cuda.get_device_name(0) if cuda else "N/A",
        "MuJoCo": get_package_version("mujoco") if is_package_available("mujoco") else "N/A",
        "Using GPU in script?": "<fill in>",
    }


def format_dict_for_markdown(d: dict[str, str]) -> str:
    """One bullet a line."""
    return "\n".join(f"- {key}: {value}" for key, value in d.items())


def main() -> None:
    """The command."""
    print("Copy this into your report and complete the last line:\n")
    print(format_dict_for_markdown(get_sys_info()))


if __name__ == "__main__":
    main()
