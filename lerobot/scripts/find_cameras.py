"""Save a picture of every camera, so that you see which is which.

python lerobot/scripts/find_cameras.py [opencv|realsense] --output-dir=outputs/captured_images
"""

from __future__ import annotations

import argparse
import time
from importlib.util import find_spec
from pathlib import Path

from lerobot.common.datasets.image_writer import write_image
from lerobot.common.robot_devices.cameras.configs import IntelRealSenseCameraConfig, OpenCVCameraConfig
from lerobot.common.robot_devices.cameras.utils import make_camera
from lerobot.common.utils.utils import run_command

NO_CAMERA = "No camera was found. Plug one in; on Linux ls /dev/video* lists what the system knows."


def configurations(kind: str | None, sources: list[str]) -> list[tuple[str, object, object]]:
    """(type, id, configuration) of each camera of a kind, or of the sources named."""
    from lerobot.common.robot_devices.cameras import opencv

    if sources:
        values = [int(source) if source.isdigit() else source for source in sources]
        return [("opencv", value, OpenCVCameraConfig(camera_index=value)) for value in values]
    found = []
    if kind in (None, "opencv"):
        found += [("opencv", index, OpenCVCameraConfig(camera_index=index)) for index in opencv.find_cameras()]
    if kind == "realsense" or (kind is None and find_spec("pyrealsense2")):
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


def save_frames(sources: list, folder: Path, seconds: float, **wanted) -> int:
    """Save every picture of all cameras during that time, as LeRobot 0.1 names them; how many.

    `wanted`: fps, width, height.
    """
    cameras = {source: make_camera("opencv", camera_index=source, **wanted) for source in sources}
    count, end = 0, None
    try:
        for camera in cameras.values():
            camera.connect()
        while end is None or time.monotonic() < end:
            end = end or time.monotonic() + seconds
            for source, camera in cameras.items():
                name = f"{source:02d}" if isinstance(source, int) else str(source).strip("/").replace("/", "_")
                write_image(camera.read(), folder / f"camera_{name}_frame_{count:06d}.png")
            count += 1
    finally:
        for camera in cameras.values():
            if camera.is_connected:
                camera.disconnect()
    return count * len(cameras)


def legacy_main() -> None:
    """The command that LeRobot 0.1 has in `cameras/opencv.py`."""
    from lerobot.common.robot_devices.cameras import opencv

    parser = argparse.ArgumentParser(description="Save what every OpenCV camera sees for some seconds.")
    parser.add_argument("--camera-ids", nargs="*", default=[], help="numbers, paths, files or URLs; default: all found")
    for name in ("fps", "width", "height"):
        parser.add_argument(f"--{name}", type=int)
    parser.add_argument("--images-dir", type=Path, default=Path("outputs/images_from_opencv_cameras"))
    parser.add_argument("--record-time-s", type=float, default=4.0)
    args = parser.parse_args()

    def run() -> None:
        sources = [int(s) if s.isdigit() else s for s in args.camera_ids] or opencv.find_cameras()
        if not sources:
            raise OSError(NO_CAMERA)
        wanted = {"fps": args.fps, "width": args.width, "height": args.height}
        count = save_frames(sources, args.images_dir, args.record_time_s, **wanted)
        print(f"{count} pictures in {args.images_dir}")

    run_command(run)


def _last_picture(camera, seconds: float):
    end = time.monotonic() + seconds  # the first pictures of many cameras are dark
    picture = camera.read()
    while time.monotonic() < end:
        picture = camera.read()
    return picture


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kind", nargs="?", choices=("opencv", "realsense"), help="default: all")
    parser.add_argument("--camera-ids", nargs="*", default=[], help="numbers, paths, files or URLs instead of a search")
    parser.add_argument("--output-dir", type=Path, default=Path("outputs/captured_images"))
    parser.add_argument("--record-time-s", type=float, default=1.0, help="how long each camera gets used to the light")
    args = parser.parse_args()

    def run() -> None:
        cameras = configurations(args.kind, args.camera_ids)
        if not save_pictures(cameras, args.output_dir, args.record_time_s):
            raise OSError(NO_CAMERA)

    run_command(run)


if __name__ == "__main__":
    main()
