"""Helpers that scripts for newer LeRobot releases import."""

import argparse
import io
import random
import sys

import numpy as np
import pytest
import torch

from lerobot.common.evaluation.video import write_video
from lerobot.common.robot_devices.safety import SafetyStopError
from lerobot.common.robot_devices.utils import DeviceError
from lerobot.common.utils import random_utils
from lerobot.common.utils.import_utils import (
    is_package_available,
    make_device_from_device_class,
    register_third_party_plugins,
    require_package,
)
from lerobot.common.utils.io_utils import deserialize_json_into_object, write_json
from lerobot.common.utils.terminal import (
    SuppressProgressBars,
    TimerManager,
    get_elapsed_time_in_days_hours_minutes_seconds,
)
from lerobot.common.utils.utils import json_dict, json_list, run_command


@pytest.mark.parametrize(("part", "place"), [("python", 0), ("numpy", 1), ("torch", 2)])
def test_each_generator_is_saved_and_restored_by_itself(part, place):
    def draw():
        return random.random(), float(np.random.rand()), float(torch.rand(1))

    state = getattr(random_utils, f"serialize_{part}_rng_state")()
    first = draw()
    getattr(random_utils, f"deserialize_{part}_rng_state")(state)
    assert [a == b for a, b in zip(first, draw(), strict=True)] == [i == place for i in range(3)]


def test_json_is_read_as_the_object_is_built(tmp_path):
    def read(value, example):
        write_json(value, tmp_path / "x.json")
        return deserialize_json_into_object(tmp_path / "x.json", example)

    assert read({"a": [1, 2], "b": None}, {"a": (0, 0), "b": None}) == {"a": (1, 2), "b": None}
    for value, error in (({"b": 1}, ValueError), ({"a": [1]}, ValueError), ({"a": [1, "x"]}, TypeError)):
        with pytest.raises(error):
            read(value, {"a": (0, 0)})


def test_flags_that_are_json_say_what_they_expect():
    assert json_list("[3, 17]") == [3, 17] and json_dict('{"a": 1}') == {"a": 1}
    for read, text in ((json_list, "3"), (json_dict, "[1]"), (json_list, "[3")):
        with pytest.raises(argparse.ArgumentTypeError, match="expected JSON such as"):
            read(text)


def test_a_terminal_without_unicode_ends_no_command(monkeypatch):
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="latin-1"))
    run_command(lambda: print("\u28ff loss", flush=True))
    assert raw.getvalue() == b"? loss\n"


@pytest.mark.parametrize("error", [SafetyStopError, DeviceError, ValueError, FileNotFoundError, ImportError])
def test_what_a_user_can_put_right_is_told_in_one_line(error, capsys):
    def command():
        raise error("Torque of elbow did not switch on.")

    with pytest.raises(SystemExit) as ended:
        run_command(command)
    assert ended.value.code == 1 and capsys.readouterr().err == "error: Torque of elbow did not switch on.\n"


def test_a_defect_keeps_its_traceback():
    def command():
        raise RuntimeError("shapes differ")

    with pytest.raises(RuntimeError, match="shapes differ"):
        run_command(command)


def test_packages_are_found_and_missing_ones_named():
    assert is_package_available("torch") and is_package_available("nothing_x", return_version=True) == (False, "N/A")
    require_package("torch")
    with pytest.raises(ImportError, match=r'nothing_x: pip install -e ".\[koch\]"'):
        require_package("nothing_x", extra="koch")


def test_a_plugin_is_imported_and_its_device_is_found_beside_its_configuration(tmp_path, monkeypatch, caplog):
    (tmp_path / "lerobot_robot_mine.py").write_text(
        "class MyArmConfig: pass\nclass MyArm:\n    def __init__(self, config): self.config = config\n"
    )
    (tmp_path / "lerobot_camera_broken.py").write_text("1 / 0")
    monkeypatch.syspath_prepend(tmp_path)
    register_third_party_plugins()
    config = sys.modules["lerobot_robot_mine"].MyArmConfig()
    assert make_device_from_device_class(config).config is config
    assert "lerobot_camera_broken" in caplog.text
    with pytest.raises(TypeError, match="Config"):
        make_device_from_device_class(object())


def test_timers_and_elapsed_time():
    timer = TimerManager(log=False)
    for _ in range(3):
        with timer:
            pass
    assert timer.count == 3 and timer.total == pytest.approx(3 * timer.avg) and timer.last == timer.history[-1]
    with pytest.raises(RuntimeError):
        timer.stop()
    timer.reset()
    assert timer.avg == timer.fps_avg == 0
    assert get_elapsed_time_in_days_hours_minutes_seconds(93784.5) == (1, 2, 3, 4.5)
    with SuppressProgressBars():
        from huggingface_hub.utils import are_progress_bars_disabled

        assert are_progress_bars_disabled()


def test_frames_become_an_mp4(tmp_path):
    write_video(tmp_path / "films" / "x.mp4", np.zeros((5, 33, 48, 3), np.uint8), fps=10)
    import av

    with av.open(str(tmp_path / "films" / "x.mp4")) as film:
        assert len([*film.decode(video=0)]) == 5
