"""The episode that visualize_dataset.py writes for rerun."""

import re
import subprocess
import sys

import pytest

from tests.datasets.conftest import features, record

SCRIPT = "lerobot/scripts/visualize_dataset.py"


def visualize(root, output, *options) -> subprocess.CompletedProcess:
    flags = [f"--root={root}", "--repo-id=me/set", "--save=1", "--num-workers=0", *options]
    flags += [f"--output-dir={output}"] if output else []
    return subprocess.run([sys.executable, SCRIPT, *flags], capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("options", [(), ("--display-compressed-images",)])
def test_a_file_has_every_value_of_the_episode(tmp_path, options):
    pytest.importorskip("rerun")
    root = record(tmp_path / "set", (5, 8), feature_set=features(video=1, image=1)).root
    run = visualize(root, tmp_path / "out", "--episode-index=1", "--batch-size=3", *options)
    (path,) = (tmp_path / "out").iterdir()
    assert path.name == "me_set_episode_1.rrd" and str(path) in run.stdout, run.stderr
    command = [sys.executable, "-m", "rerun", "rrd", "print", "-v", str(path)]
    printed = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout
    rows = {}
    for count, name in re.findall(r"with (\d+) rows .*? - /(\S+) - .*columns: \[.*:", printed):
        rows[name] = rows.get(name, 0) + int(count)
    joints = {f"{kind}/{joint}" for kind in ("state", "action") for joint in range(6)}
    expected = joints | {"observation.images.cam0", "observation.images.cam1"}
    assert {name: count for name, count in rows.items() if not name.startswith("__")} == dict.fromkeys(expected, 8)


def test_what_is_asked_for_must_exist(tmp_path, recorded_root):
    pytest.importorskip("rerun")
    run = visualize(recorded_root, tmp_path / "out", "--episode-index=9")
    assert run.returncode == 1 and "Episodes [9] are not in" in run.stderr and not (tmp_path / "out").exists()
    assert "--output-dir" in visualize(recorded_root, None, "--episode-index=0").stderr
