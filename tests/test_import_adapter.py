"""New-layout names are the modules and objects of this package."""

import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from lerobot import import_adapter

import_adapter.install()


@pytest.mark.parametrize(("new", "ours"), import_adapter.MODULES.items())
def test_every_module_of_the_table_is_the_module_here(new, ours):
    assert importlib.import_module(new) is importlib.import_module(ours)


PUBLIC_NAMES = Path(__file__).parent / "artifacts/public_names/names.txt"


@pytest.mark.parametrize("line", PUBLIC_NAMES.read_text().splitlines(), ids=lambda line: line.partition(":")[0])
def test_every_public_name_is_the_object_here(line):
    name, _, words = line.partition(": ")
    module, ours = importlib.import_module(name), importlib.import_module(import_adapter.here(name))
    for word in words.split():
        value = getattr(module, word)
        assert value is getattr(ours, word), word
        if isinstance(value, type) or hasattr(value, "__code__"):
            assert import_adapter.here(value.__module__) == value.__module__, word


ABSENT_NAMES = PUBLIC_NAMES.parent / "absent.txt"


@pytest.mark.parametrize("line", ABSENT_NAMES.read_text().splitlines())
def test_every_absent_name_is_an_import_error_that_names_the_nearest(line):
    name, _, nearest = line.partition(": ")
    package, _, leaf = name.rpartition(".")
    for statement in (f"from {package} import {leaf}", *([f"import {name}"] if leaf.islower() else [])):
        with pytest.raises(ImportError, match=re.escape(f"'{nearest}'")):
            exec(statement)
    package, _, leaf = nearest.rpartition(".")  # which exists
    parent = importlib.import_module(package)
    assert hasattr(parent, leaf) or importlib.import_module(nearest)


@pytest.mark.parametrize("module", import_adapter.NAMES)
def test_every_name_of_the_table_is_offered(module):
    for source, words in import_adapter.NAMES[module].items():
        for word in words.split():
            new, _, old = word.partition("=")
            expected = getattr(importlib.import_module(source), old or new)
            assert getattr(importlib.import_module(module), new) is expected


def test_classes_have_one_identity_whichever_name_came_first():
    code = (
        "import {0}; import {1}; import sys\n"
        "a, b = sys.modules['{0}'], sys.modules['{1}']\n"
        "assert a is b and a.__name__ == a.__spec__.name == 'lerobot.common.processor.batch', a.__spec__\n"
        "assert a.__package__ == 'lerobot.common.processor' and a.__spec__.loader is a.__loader__"
    )
    names = ("lerobot.processor.batch", "lerobot.common.processor.batch")
    for order in (names, names[::-1]):
        run = subprocess.run(
            [
                sys.executable,
                "-c",
                "from lerobot import import_adapter as i; i.install()\n" + code.format(*order),
            ],
            capture_output=True,
            text=True,
        )
        assert run.returncode == 0, run.stderr


def test_forms_of_import():
    import lerobot.processor.normalize_processor as module
    from lerobot.processor import NormalizerProcessorStep, normalize_processor
    from lerobot.processor.core import TransitionKey
    from lerobot.utils import OBS_STATE, constants
    from lerobot.utils.constants import OBS_ENV_STATE

    import lerobot.common.constants
    import lerobot.common.processor.normalize as ours

    assert module is normalize_processor is ours
    assert NormalizerProcessorStep is ours.NormalizerProcessorStep
    assert TransitionKey is importlib.import_module("lerobot.common.processor").TransitionKey
    assert constants is lerobot.common.constants and constants.OBS_STATE is OBS_STATE
    assert constants.OBS_ENV is OBS_ENV_STATE


def test_packages_without_a_file_hold_their_modules():
    import lerobot.rl

    assert lerobot.rl.__name__ == "lerobot.rl"
    assert importlib.import_module("lerobot.rl.wandb_utils").WandBLogger


@pytest.mark.parametrize(
    ("statement", "nearest"),
    [
        ("import lerobot.policies.akt", "lerobot.common.policies.act"),
        ("import lerobot.processor.device_procesor", "device_processor"),
        ("from lerobot.processor import NormalizerStep", "NormalizerProcessorStep"),
        ("from lerobot.processor.core import TransitionKeys", "TransitionKey"),
        ("from lerobot.utils.constants import OBS_STAT", "OBS_STATE"),
        ("from lerobot import datasetz", "lerobot.datasets"),
        ("import lerobot.prozessor", "lerobot.processor"),
        ("import lerobot.robots.so100_follower", "lerobot.common.robot_devices.robots.manipulator"),
        ("from lerobot.motors.feetech import FeetechMotorsBus", "lerobot.common.robot_devices.motors.dynamixel"),
        ("from lerobot.teleoperators.koch_leader import KochLeader", "lerobot.common.robot_devices.robots"),
    ],
)
def test_unknown_names_are_import_errors_that_name_the_nearest(statement, nearest):
    with pytest.raises(ImportError, match=nearest):
        exec(statement)


def test_asking_for_an_attribute_does_not_raise_import_errors():
    assert not hasattr(importlib.import_module("lerobot.processor.core"), "nothing")
    assert not hasattr(importlib.import_module("lerobot.processor"), "nothing")


def test_a_missing_dependency_is_not_taken_for_a_missing_name(monkeypatch):
    """What a package needs and lacks is reported as itself."""
    monkeypatch.delitem(sys.modules, "lerobot.common.optim", raising=False)
    monkeypatch.delitem(sys.modules, "lerobot.optim", raising=False)
    monkeypatch.setattr(importlib.import_module("lerobot.common"), "optim", None, raising=False)

    class Breaks:
        @staticmethod
        def find_spec(name, path=None, target=None):
            if name == "lerobot.common.optim":
                raise ModuleNotFoundError("No module named 'gymnasium'", name="gymnasium")

    monkeypatch.setattr(sys, "meta_path", [Breaks, *sys.meta_path])
    with pytest.raises(ModuleNotFoundError, match="gymnasium"):
        importlib.import_module("lerobot.optim")


def test_installing_twice_adds_nothing_and_imports_nothing():
    before = list(sys.meta_path)
    import_adapter.install()
    assert sys.meta_path == before
    code = (
        "import sys; from lerobot import import_adapter as i; i.install()\n"
        "assert not {'torch', 'difflib', 'lerobot.common'} & set(sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_modules_run_under_their_new_name():
    code = (
        "import runpy, sys; from lerobot import import_adapter as i; i.install()\n"
        "sys.argv = ['x', '--help']\n"
        "name = 'lerobot.processor.migrate_policy_normalization'\n"
        "runpy.run_module(name, run_name='__main__', alter_sys=True)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == 0 and "--pretrained-path" in run.stdout, run.stderr


def test_devices_by_the_names_of_newer_releases():
    from lerobot.cameras.opencv.configuration_opencv import OpenCVCameraConfig
    from lerobot.motors.dynamixel import DynamixelMotorsBus
    from lerobot.processor.hil_processor import TeleopEvents, TimeLimitProcessorStep
    from lerobot.robots import KochRobotConfig, make_robot_from_config
    from lerobot.teleoperators.utils import TeleopEvents as same
    from lerobot.utils.errors import DeviceNotConnectedError
    from lerobot.utils.robot_utils import busy_wait, precise_sleep

    import lerobot.common.robot_devices as ours
    from lerobot.common.robot_devices.utils import RobotDeviceNotConnectedError

    assert DeviceNotConnectedError is RobotDeviceNotConnectedError and busy_wait is precise_sleep
    assert TeleopEvents is same and TimeLimitProcessorStep(max_episode_steps=1)
    assert make_robot_from_config.__module__.startswith(ours.__name__) and DynamixelMotorsBus
    assert isinstance(KochRobotConfig().cameras["laptop"], OpenCVCameraConfig)


def test_every_console_command_has_its_function():
    tomllib = pytest.importorskip("tomllib")
    with open(Path(import_adapter.__file__).parents[1] / "pyproject.toml", "rb") as f:
        commands = tomllib.load(f)["project"]["scripts"]
    assert {"lerobot-train", "lerobot-eval", "lerobot-record"} <= commands.keys()
    for place in commands.values():
        module, _, function = place.partition(":")
        assert callable(getattr(importlib.import_module(module), function))


@pytest.mark.parametrize("module", ["lerobot_train", "lerobot_eval", "lerobot_record"])
def test_the_new_script_names_run_as_modules(module, tmp_path):
    command = [sys.executable, "-m", f"lerobot.scripts.{module}", "--help"]
    environment = {**os.environ, "PYTHONPATH": str(Path(import_adapter.__file__).parents[1])}
    run = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert run.returncode == 0 and "--" in run.stdout, run.stderr


def test_the_package_lists_what_there_is_to_choose_from():
    import lerobot

    assert {"act", "smolvla"} <= set(lerobot.available_policies) and "koch" in lerobot.available_robots
    assert ("koch", "KochPickPlace-v0") in lerobot.env_task_pairs and "dynamixel" in lerobot.available_motors
    assert not hasattr(lerobot, "available_nothing")
