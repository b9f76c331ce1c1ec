"""`report.py`: one page for one or several checkpoints."""

import json
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch

from lerobot.common.datasets.lerobot_dataset import LeRobotDataset, LeRobotDatasetMetadata
from lerobot.common.datasets.utils import dataset_to_policy_features
from lerobot.common.evaluation.report_card import run_name
from lerobot.common.evaluation.report_run import mismatches
from lerobot.common.evaluation.svg import Line, line_chart, ticks
from lerobot.common.policies.factory import (
    get_policy_class,
    make_policy_config,
    make_pre_post_processors,
    set_features,
)
from lerobot.common.training.checkpoint import RECORD_NAME
from lerobot.common.training.record import describe_dataset
from lerobot.configs.policies import PreTrainedConfig
from lerobot.scripts import report as script
from tests.evaluation.test_predict_script import SIZES, record

JOINTS = ["pan", "gripper"]
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return record(tmp_path_factory.mktemp("data") / "recorded", JOINTS, ["front", "side"])


def save_act(folder, root, blind=False, **more):
    """A small random ACT; `blind`: its pictures are multiplied with zero on their way in."""
    dataset = LeRobotDataset(root=root)
    options = {"n_action_steps": 4, "pretrained_backbone_weights": None, "device": "cpu"}
    config = make_policy_config("act", **{**SIZES, **options, **more})
    set_features(config, dataset_to_policy_features(dataset.features))
    torch.manual_seed(0)
    policy = get_policy_class("act")(config)
    if blind:
        policy.model.encoder_img_feat_input_proj.weight.data.zero_()
    for part in (policy, *make_pre_post_processors(config, dataset_stats=dataset.meta.stats)):
        part.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory, root):
    folder = tmp_path_factory.mktemp("runs")
    return [save_act(folder / name / "pretrained_model", root, name == "blind") for name in ("seeing", "blind")]


@pytest.fixture(scope="module")
def written(checkpoints, root, tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    paths = [f"--policy.path={checkpoints[0]}", str(checkpoints[1])]
    script.report(script.parse([*paths, f"--dataset.root={root}", f"--output_dir={folder}"]))
    return folder


def test_the_page_stands_alone(written):
    page = (written / "report.html").read_text()
    assert len(page) < 5e6
    assert "<script" not in page and not re.search(r'(src|href)="(?!data:)', page) and "url(" not in page
    assert "of the first" not in page  # chunks of one length
    assert "seeing" in page and "blind" in page and page.count("data:image/jpeg") >= 4
    assert "nan" not in re.sub(r"base64,[^\"]+", "", page).lower().replace("finance", "")


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium")
def test_a_browser_without_a_network_shows_it_without_complaint(written, tmp_path):
    flags = [
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        f"--user-data-dir={tmp_path}",
        "--enable-logging=stderr",
    ]
    offline = ["--host-resolver-rules=MAP * ~NOTFOUND", "--dump-dom", (written / "report.html").as_uri()]
    done = subprocess.run([CHROMIUM, *flags, *offline], capture_output=True, text=True, timeout=120)
    assert "What it depends on" in done.stdout and "</svg>" in done.stdout
    assert "CONSOLE" not in done.stderr


def test_the_probes_tell_a_policy_that_does_not_see_from_one_that_does(written):
    cards = json.loads((written / "report.json").read_text())
    seeing, blind = (cards[name]["probes"] for name in ("seeing", "blind"))
    for camera in ("observation.images.front", "observation.images.side"):
        assert blind[camera]["change"] < 1e-6 < seeing[camera]["change"]
    messages = [finding["message"] for finding in cards["blind"]["findings"]]
    assert any(message.startswith("Ignores the front camera") for message in messages)
    assert any(message.startswith("Reads no instruction") for message in messages)
    assert cards["blind"]["trained_on_these_episodes"] is None


def test_chunks_of_different_lengths_are_compared_as_far_as_all_reach(checkpoints, root, tmp_path):
    short = save_act(tmp_path / "short" / "pretrained_model", root, chunk_size=4)
    flags = [f"--policy.path={checkpoints[0]}", str(short), f"--dataset.root={root}", f"--output_dir={tmp_path}"]
    cards = script.report(script.parse(flags))
    page = (tmp_path / "report.html").read_text()
    assert "of the first 0.4 s of each chunk" in page
    still = re.search(r"error of an arm that holds still</td><td class=n>(.*?)</td><td class=n>(.*?)</td>", page)
    assert still[1] == still[2] == f"{cards[1].report.holding_still:.3g}"
    assert f"over a chunk of {cards[0].seconds:.2g} s" in page and f"over a chunk of {cards[1].seconds:.2g} s" in page


def test_the_last_episodes_are_looked_at_unless_others_are_named(root, checkpoints, tmp_path):
    arguments = [f"--policy.path={checkpoints[0]}", f"--dataset.root={root}", f"--output_dir={tmp_path}"]
    (card,) = script.report(script.parse(arguments))
    assert set(card.report.episode_index) == {1} and card.every == 4
    (card,) = script.report(script.parse([*arguments, "--dataset.episodes=[0]"]))
    assert set(card.report.episode_index) == {0}
    with pytest.raises(ValueError, match=r"\[7\]"):
        script.report(script.parse([*arguments, "--dataset.episodes=[7]"]))
    with pytest.raises(ValueError, match="names no episode"):
        script.report(script.parse([*arguments, "--dataset.episodes=[]"]))


def test_one_frame_is_not_taken_for_a_policy_that_does_not_look(checkpoints, tmp_path, recwarn):
    one = record(tmp_path / "one", JOINTS, ["front", "side"], lengths=(1, 1))
    script.report(
        script.parse([f"--policy.path={checkpoints[0]}", f"--dataset.root={one}", f"--output_dir={tmp_path}"])
    )
    card = json.loads((tmp_path / "report.json").read_text(), parse_constant=pytest.fail)["seeing"]
    codes = [finding["code"] for finding in card["findings"]]
    assert "probe.none" in codes and "probe.constant" not in codes and card["roughness"] is None
    assert "nan" not in re.sub(r"base64,[^\"]+", "", (tmp_path / "report.html").read_text()).lower()
    assert not [str(w.message) for w in recwarn if "empty slice" in str(w.message)]


def test_another_rate_and_other_joints_than_in_training_are_told(root, tmp_path):
    folder = save_act(tmp_path / "run" / "pretrained_model", root)
    (folder / RECORD_NAME).write_text(json.dumps({"dataset": describe_dataset(LeRobotDataset(root=root))}))
    config, meta = PreTrainedConfig.from_pretrained(folder), LeRobotDatasetMetadata(None, root=root)
    assert mismatches(folder, config, meta) == []
    meta.info["fps"] = 5
    meta.info["features"]["action"]["names"] = ["gripper", "pan"]
    found = mismatches(folder, config, meta)
    assert {finding.code for finding in found} == {"match.fps", "match.joint_order"}
    assert not any(finding.fix for finding in found)  # the robot's flags do not help here


def test_a_checkpoint_for_other_features_is_one_message(root, checkpoints, tmp_path):
    other = record(tmp_path / "other", JOINTS, ["front"])
    flags = [f"--policy.path={checkpoints[0]}", f"--dataset.root={other}", f"--output_dir={tmp_path / 'out'}"]
    command = [sys.executable, script.__file__, *flags]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 1 and "'observation.images.side' is missing" in done.stderr
    assert "Traceback" not in done.stderr and not (tmp_path / "out").exists()


def test_an_empty_dataset_is_one_message(checkpoints, tmp_path):
    vector = {"dtype": "float32", "shape": (2,), "names": JOINTS}
    LeRobotDataset.create(None, 10, tmp_path / "empty", features={"observation.state": vector, "action": vector})
    arguments = [f"--policy.path={checkpoints[0]}", f"--dataset.root={tmp_path / 'empty'}"]
    with pytest.raises(ValueError, match="no episodes"):
        script.report(script.parse(arguments))


@pytest.mark.parametrize(
    ("flag", "message"),
    [("--chunks=0", "--chunks=0: expected"), ("--policy.device=cuda:99", "'cuda:99' is not available")],
)
def test_a_flag_that_cannot_be_is_one_message(root, checkpoints, flag, message):
    with pytest.raises(ValueError, match=message):
        script.report(script.parse([f"--policy.path={checkpoints[0]}", f"--dataset.root={root}", flag]))


def test_runs_are_called_by_their_folder():
    assert run_name("outputs/train/pick/checkpoints/last/pretrained_model") == "pick"
    assert run_name("outputs/train/pick/checkpoints/002000/pretrained_model") == "pick 002000"
    assert run_name("lerobot/smolvla_base") == "smolvla_base"
    names = script.unique_names(["a/x/pretrained_model", "b/x/pretrained_model", "b/y"])
    assert names == ["a/x", "b/x", "y"]
    last = "a/run/checkpoints/last"
    assert script.unique_names([last, "b/run/checkpoints/last/pretrained_model"]) == ["a/run", "b/run"]
    assert script.unique_names([last, last, "c"]) == ["a/run (1)", "a/run (2)", "c"]


def test_charts_have_round_ticks_and_gaps():
    assert ticks(0.0, 9.7) == [0, 2, 4, 6, 8, 10]
    assert ticks(3.0, 3.0)[0] <= 3.0 <= ticks(3.0, 3.0)[-1]
    chart = line_chart([Line(np.arange(5.0), np.array([1, 2, np.nan, 3, 4]), "p0", "a < b")], "x")
    long = line_chart([Line(np.arange(2000.0), np.where(np.arange(2000) % 100 == 99, np.nan, 1.0), "p0")], "x")
    assert long.split('class="p0"')[1].count("M") == 20  # thinned out, but not joined
    assert re.search(r'd="M[^"]*M', chart) and "a &lt; b" in chart and "nan" not in chart
