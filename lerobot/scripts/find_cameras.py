"""Save a picture of every camera, so that you see which is which.

python lerobot/scripts/find_cameras.py [opencv|realsense] --output-dir=outputs/captured_images
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from lerobot.common.datasets.image_writer import write_image
from lerobot.common.robot_devices.cameras.configs import IntelRealSenseCameraConfig, OpenCVCameraConfig
from lerobot.common.robot_devices.cameras.utils import make_camera
from lerobot.common.utils.utils import run_command


def configurations(kind: str | None, sources: list[str]) -> list[tuple[str, object, object]]:
    """(type, id, configuration) of each camera of a kind, or of the sources named."""
    from lerobot.common.robot_devices.cameras import opencv

    if sources:
        values = [int(source) if source.isdigit() else source for source in sources]
        return [("opencv", value, OpenCVCameraConfig(camera_index=value)) for value in values]
    found = []
    if kind in (None, "opencv"):
        found += [("opencv", index, OpenCVCameraConfig(camera_index=index)) for index in opencv.find_cameras()]
    if kind == "realsense":
        from lerobot.common.robot_devices.cameras import intelrealsense

        serials = intelrealsense.find_cameras()
        found += [("intelrealsense", s, IntelRealSenseCameraConfig(serial_number=s)) for s in serials]
    return found


def save_pictures(cameras: list[tuple[str, object, object]], folder: Path, seconds: float) -> list[Path]:
    """The last picture of each camera after that time; prints one line per camera."""
    paths = []
    for kind, name, config in cameras:
        camera = make_camera(kind, config=config)
        try:
            camera.connect()
            picture = _last_picture(camera, seconds)
        except (OSError, ValueError) as e:  # one that is broken hides no other
            print(f"{kind} {name}: {e}")
            continue
        finally:
            if camera.is_connected:
                camera.disconnect()
        path = folder / f"{kind}_{str(name).strip('/').replace('/', '_')}.png"
        write_image(picture, path)
        print(f"{kind} {name}: {camera.width}x{camera.height} at {camera.fps} fps -> {path}")
        paths.append(path)
    return paths


def _last_picture(camera, seconds: float):
    end = time.monotonic() + seconds  # the first pictures of many cameras are dark
    picture = camera.read()
    while time.monotonic() < end:
        picture = camera.read()
    return picture


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kind", nargs="?", choices=("opencv", "realsense"), help="default: opencv")
    parser.add_argument("--camera-ids", nargs="*", default=[], help="numbers, paths, files or URLs instead of a search")
    parser.add_argument("--output-dir", type=Path, default=Path("outputs/captured_images"))
    parser.add_argument("--record-time-s", type=float, default=1.0)
    args = parser.parse_args()

    def run() -> None:
        cameras = configurations(args.kind, args.camera_ids)
        if not save_pictures(cameras, args.output_dir, args.record_time_s):
            raise OSError("No camera was found. Plug one in; on Linux ls /dev/video* lists what the system knows.")

    run_command(run)


if __name__ == "__main__":
    main()
