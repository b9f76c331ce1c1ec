"""Cameras: a video file stands in for a device."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from lerobot.common.checks.robot import check_rate
from lerobot.common.robot_devices.cameras.base import StaleFrameError
from lerobot.common.robot_devices.cameras.configs import OpenCVCameraConfig
from lerobot.common.robot_devices.cameras.opencv import OpenCVCamera
from lerobot.common.robot_devices.cameras.utils import make_camera
from lerobot.common.robot_devices.utils import RobotDeviceAlreadyConnectedError, RobotDeviceNotConnectedError
from lerobot.scripts.find_cameras import configurations, save_pictures


@pytest.fixture
def film(tmp_path):
    """Five frames of 64x48, red on the left half."""
    path = tmp_path / "film.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 25, (64, 48))
    frame = np.zeros((48, 64, 3), np.uint8)
    frame[:, :32] = (0, 0, 255)  # BGR
    for _ in range(5):
        writer.write(frame)
    writer.release()
    return str(path)


def test_a_file_is_read_as_rgb_and_played_again(film):
    camera = OpenCVCamera(OpenCVCameraConfig(camera_index=film))
    camera.connect()
    pictures = [camera.read() for _ in range(8)]
    assert (camera.width, camera.height, camera.fps) == (64, 48, 25)
    assert pictures[-1].shape == (48, 64, 3) and pictures[-1][24, 8, 0] > 200 and pictures[-1][24, 8, 2] < 60
    assert camera.read("bgr")[24, 8, 2] > 200
    camera.disconnect()


@pytest.mark.parametrize("mode", ["rgb", "bgr"])
def test_a_quarter_turn_swaps_width_and_height(film, mode):
    camera = OpenCVCamera(OpenCVCameraConfig(camera_index=film, rotation=-90, color_mode=mode))
    camera.connect()
    picture = camera.async_read()
    assert picture.shape == (64, 48, 3) and (camera.width, camera.height) == (48, 64)
    assert picture[56, 24].max() > 200 and picture[8, 24].max() < 60  # the left half is now at the bottom
    camera.disconnect()


def test_a_size_that_the_camera_lacks_is_told(film):
    camera = OpenCVCamera(OpenCVCameraConfig(camera_index=film, width=640))
    with pytest.raises(OSError, match="set width=64"):
        camera.connect()
    assert not camera.is_connected


def test_a_frozen_picture_is_never_handed_out(film):
    camera = OpenCVCamera(OpenCVCameraConfig(camera_index=film))
    camera.connect()
    camera.read_latest()
    camera._stop.set()
    camera._thread.join(60)
    camera._latest = (camera._latest[0], camera._latest[1] - 10)
    with pytest.raises(StaleFrameError, match="at most 200 ms"):
        camera.async_read()
    camera.disconnect()


def test_a_camera_that_fails_is_opened_again(film):
    camera = OpenCVCamera(OpenCVCameraConfig(camera_index=film))
    camera.connect()
    camera._release()
    camera.read_latest(max_age_ms=5000)
    assert camera.reconnects == 1
    camera.disconnect()


def test_states_and_bad_settings():
    camera = make_camera("opencv", camera_index=0, mock=True)
    with pytest.raises(RobotDeviceNotConnectedError):
        camera.read()
    camera.connect()
    with pytest.raises(RobotDeviceAlreadyConnectedError):
        camera.connect()
    assert camera.async_read().shape == (480, 640, 3)
    camera.disconnect()
    with pytest.raises(ValueError, match="rotation"):
        OpenCVCameraConfig(camera_index=0, rotation=45)
    with pytest.raises(ValueError, match="color_mode"):
        OpenCVCameraConfig(camera_index=0, color_mode="grey")
    with pytest.raises(ValueError, match="There is no camera"):
        make_camera("opencv", camera_index="nowhere.mp4").connect()


def test_find_cameras_saves_a_picture_of_each(film, tmp_path):
    paths = save_pictures(configurations(None, [film]), tmp_path / "out", 0.0)
    assert len(paths) == 1 and cv2.imread(str(paths[0])).shape == (48, 64, 3)


def test_a_camera_that_was_closed_is_not_lost_and_a_lost_one_is_told_once(film, caplog):
    camera = OpenCVCamera(OpenCVCameraConfig(camera_index=film))
    camera.connect()
    tries = []

    def fail():
        tries.append(1)
        if len(tries) == 3:
            camera._stop.set()
        raise OSError(f"{camera.label} gave nothing")

    camera._grab = fail
    camera._release = camera._open = lambda: None
    camera._stop.wait = lambda seconds: camera._stop.is_set()
    camera._run()
    assert caplog.text.count("Trying to reconnect") == 1 and caplog.text.count(camera.label) == 1


def test_a_camera_slower_than_the_loop_is_told_before_the_run():
    assert not check_rate("top", rate=28.0, wanted=30)
    (finding,) = check_rate("top", rate=15.2, wanted=30)
    assert finding.severity == "warning" and "15 pictures per second" in finding.message
