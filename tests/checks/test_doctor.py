"""Seeded mistakes, one test each: the doctor names each with what mends it, and is silent about a healthy set-up."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import lerobot
from lerobot.common.checks import environment, training
from lerobot.common.checks.checkpoint import check_checkpoint
from lerobot.common.checks.doctor import examine
from lerobot.common.checks.facts import Facts, dataset_facts
from lerobot.common.checks.finding import exit_code
from lerobot.common.checks.match import check_match
from lerobot.common.checks.reading import check_reading
from lerobot.common.policies import ACTConfig, SmolVLAConfig
from lerobot.configs.doctor import DoctorConfig, DoctorDataset, DoctorPolicy
from lerobot.configs.types import FeatureType, PolicyFeature
from lerobot.scripts.doctor import examined, parse, report
from lerobot.scripts.train import train
from tests.training.conftest import JOINTS, dataset_root, make_config  # noqa: F401  fixtures

LAPTOP = "observation.images.laptop"


def codes(findings):
    """The code of each finding, after checking that each says what mends it."""
    assert all(f.fix for f in findings if f.severity != "info"), [f.code for f in findings if not f.fix]
    return [f.code for f in findings]


@pytest.fixture(scope="module")
def trained(tmp_path_factory, dataset_root):  # noqa: F811
    """A run of two steps, from which tests take copies."""
    folder = tmp_path_factory.mktemp("trained")
    train(make_config.__wrapped__(dataset_root, folder)(steps=2, batch_size=8))
    return folder / "run"


@pytest.fixture
def run(trained, tmp_path):
    """A copy of the run, to be damaged."""
    shutil.copytree(trained, tmp_path / "run", symlinks=True)
    return tmp_path / "run"


@pytest.fixture
def data(dataset_root, tmp_path):  # noqa: F811
    """A copy of the dataset, to be damaged."""
    shutil.copytree(dataset_root, tmp_path / "data")
    return tmp_path / "data"


def model(run):
    return run / "checkpoints" / "000002" / "pretrained_model"


def edit_json(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_a_healthy_set_up_has_no_findings(dataset_root, trained, monkeypatch):  # noqa: F811
    monkeypatch.setattr(environment, "check_import_clash", lambda *_: [])  # of the machine that runs the tests
    cfg = DoctorConfig(DoctorDataset(str(dataset_root)), DoctorPolicy(str(trained)), steps=100_000)
    findings = examine(cfg)
    assert [f for f in findings if f.severity != "info"] == []
    assert exit_code(findings) == 0 and "Healthy" in report(findings)


# --- machine --------------------------------------------------------------------------------------------------


def test_an_old_python():
    assert codes(environment.check_python((3, 9, 1))) == ["env.python"]


def test_a_second_lerobot_on_the_path(tmp_path):
    for name in ("mine", "other"):
        (tmp_path / name / "lerobot").mkdir(parents=True)
        (tmp_path / name / "lerobot" / "__init__.py").touch()
    path = [str(tmp_path / "mine"), str(tmp_path / "other")]
    found = environment.check_import_clash(tmp_path / "mine" / "lerobot", path, cwd=tmp_path)
    assert codes(found) == ["env.second_lerobot"] and str(tmp_path / "other") in str(found[0].evidence)


def test_a_checkout_that_is_not_the_one_imported(tmp_path):
    (tmp_path / "here" / "lerobot").mkdir(parents=True)
    (tmp_path / "here" / "lerobot" / "__init__.py").touch()
    found = environment.check_import_clash(tmp_path / "elsewhere" / "lerobot", [], cwd=tmp_path / "here")
    assert codes(found) == ["env.other_checkout"]


def test_an_old_torch():
    assert codes(environment.check_torch("2.2.1", False, None)) == ["env.torch_version"]


def test_a_torch_that_cannot_use_the_gpu():
    found = environment.check_torch("2.7.0+cpu", False, "550.54")
    assert codes(found) == ["env.gpu_unused"] and "CPU build" in found[0].message


def test_a_gpu_that_is_wanted_and_absent():
    assert codes(environment.check_torch("2.7.0", False, None, "cuda")) == ["env.no_gpu"]


def test_a_decoder_that_is_missing():
    assert codes(environment.check_decoders(["h264", "hevc"])) == ["env.decoder"]


def test_one_decoder_does_not_stand_for_another(monkeypatch):
    monkeypatch.setattr("av.codecs_available", {"libdav1d", "hevc"})
    assert environment.available_decoders() == ["hevc", "av1"]


def test_a_driver_that_does_not_answer_does_not_stop_the_doctor(monkeypatch):
    def hangs(command, **_):
        raise subprocess.TimeoutExpired(command, 20)

    monkeypatch.setattr(shutil, "which", lambda _: "/usr/bin/nvidia-smi")
    monkeypatch.setattr(subprocess, "run", hangs)
    assert environment.driver_version() is None


def test_a_full_disk(tmp_path):
    assert "env.disk" in codes(environment.check_disk(tmp_path, needed_gb=1e9))


def test_an_output_folder_that_cannot_be_written(tmp_path, monkeypatch):
    monkeypatch.setattr(environment.os, "access", lambda *_: False)
    assert "env.read_only" in codes(environment.check_disk(tmp_path))
    assert codes(environment.check_cache_folder(tmp_path / "cache")) == ["env.cache_read_only"]


def test_a_package_that_a_policy_needs(monkeypatch):
    monkeypatch.setattr(environment.importlib.util, "find_spec", lambda _: None)
    assert codes(environment.check_packages("smolvla")) == ["env.package"]


# --- dataset --------------------------------------------------------------------------------------------------


def test_a_folder_that_is_no_dataset(data):
    found = check_reading(data.parent)[1]
    assert codes(found) == ["dataset.absent"] and found[0].fix == f"--dataset.root={data}"


def test_an_old_dataset_version(data):
    edit_json(data / "meta" / "info.json", lambda info: info.update(codebase_version="v1.6"))
    assert codes(check_reading(data)[1]) == ["dataset.version"]


def test_metadata_that_is_damaged(data):
    (data / "meta" / "info.json").write_text("{")
    assert codes(check_reading(data)[1]) == ["dataset.metadata"]


def test_tasks_that_are_missing(data):
    (data / "meta" / "tasks.jsonl").write_text(json.dumps({"task_index": 0, "task": " "}) + "\n")
    assert "dataset.tasks" in codes(check_reading(data)[1])


def test_an_episode_without_its_file(data):
    next((data / "data").rglob("*1.parquet")).unlink()
    found = check_reading(data)[1]
    assert codes(found) == ["dataset.files"] and "--dataset.episodes=[0,2]" in found[0].fix


def test_a_video_that_does_not_decode(data):
    next((data / "videos").rglob("*0.mp4")).write_bytes(b"no video")
    assert codes(check_reading(data)[1]) == ["dataset.decode"]


def test_a_camera_whose_size_is_stated_wrongly(data):
    edit_json(data / "meta" / "info.json", lambda info: info["features"][LAPTOP].update(shape=[50, 64, 3]))
    assert "dataset.picture_size" in codes(check_reading(data)[1])


# --- checkpoint -----------------------------------------------------------------------------------------------


def test_a_folder_that_is_no_checkpoint(tmp_path):
    assert codes(check_checkpoint(tmp_path).findings) == ["checkpoint.absent"]


def test_a_last_link_that_leads_nowhere(run):
    (run / "checkpoints" / "last").unlink()
    (run / "checkpoints" / "last").symlink_to("000009")
    found = check_checkpoint(run).findings
    assert codes(found) == ["checkpoint.last"] and "000002" in found[0].fix


def test_a_checkpoint_that_was_cut_off(run):
    file = model(run) / "model.safetensors"
    file.write_bytes(file.read_bytes()[:1000])
    assert {"checkpoint.damaged", "checkpoint.unreadable"} <= set(codes(check_checkpoint(run).findings))


def test_a_configuration_of_an_unknown_policy(run):
    edit_json(model(run) / "config.json", lambda config: config.update(type="unheard_of"))
    assert "checkpoint.config" in codes(check_checkpoint(run).findings)


def test_an_adapter_needs_no_other_weights(run):
    folder = model(run)
    (folder / "adapter_config.json").write_text("{}")
    (folder / "model.safetensors").rename(folder / "adapter_model.safetensors")
    assert "checkpoint.no_weights" not in codes(check_checkpoint(run).findings)


def test_weights_that_are_not_finite(run):
    file = model(run) / "model.safetensors"
    weights = load_file(file)
    weights["model.action_head.bias"][0] = float("nan")
    save_file(weights, file)
    assert "checkpoint.not_finite" in codes(check_checkpoint(run).findings)


def test_processors_that_were_not_copied(run):
    for file in model(run).glob("policy_*"):
        file.unlink()
    assert "checkpoint.processors" in codes(check_checkpoint(run).findings)


def test_statistics_under_another_name(run):
    file = next(model(run).glob("policy_pre*.safetensors"))
    save_file({k.replace("observation.state", "so100.buffer.state"): v for k, v in load_file(file).items()}, file)
    found = {f.code: f for f in check_checkpoint(run).findings}
    assert found["checkpoint.statistics"].where.feature == "observation.state"


def test_a_joint_that_never_moved(run):
    file = next(model(run).glob("policy_pre*.safetensors"))
    stats = load_file(file)
    stats["action.std"][5] = 0
    save_file(stats, file)
    found = [f for f in check_checkpoint(run).findings if f.code == "checkpoint.constant"]
    assert found and found[0].evidence == {"components": [5]}


def test_a_tokenizer_that_is_not_there(run, monkeypatch):
    import lerobot.common.policies.factory as factory

    def absent(*_, **__):
        raise FileNotFoundError("Tokenizer 'some/vlm': no such folder, not in the cache, and the hub is out of reach.")

    monkeypatch.setattr(factory, "make_pre_post_processors", absent)
    assert "checkpoint.tokenizer" in codes(check_checkpoint(run).findings)


# --- dataset x checkpoint x robot -----------------------------------------------------------------------------


def side(label="the dataset", **changes):
    """Facts of a six-joint arm with one camera in degrees."""
    stats = {"mean": np.zeros(6), "std": np.full(6, 30.0)}
    facts = {
        "cameras": {LAPTOP: (3, 480, 640)},
        "joints": JOINTS,
        "sizes": {"observation.state": 6, "action": 6},
        "fps": 30,
        "tasks": ["Pick up the cube."],
        "stats": {"action": stats, "observation.state": stats},
        "episode_lengths": [200] * 10,
    }
    return Facts(label, **{**facts, **changes})


def test_two_sides_that_match():
    assert check_match(side(), side("the checkpoint"), needs_tasks=True) == []


@pytest.mark.parametrize(
    ("code", "changes"),
    {
        "match.cameras": {"cameras": {"observation.images.top": (3, 480, 640)}},
        "match.channels": {"cameras": {LAPTOP: (1, 480, 640)}},
        "match.aspect": {"cameras": {LAPTOP: (3, 480, 480)}},
        "match.size": {"sizes": {"observation.state": 6, "action": 7}},
        "match.missing": {"sizes": {"action": 6}},
        "match.joint_order": {"joints": JOINTS[::-1]},
        "match.joint_names": {"joints": [*JOINTS[:-1], "claw"]},
        "match.fps": {"fps": 10},
        "match.units": {"units": "radians"},
        "match.tasks": {"tasks": ["Fold the shirt."]},
    }.items(),
)
def test_sides_that_do_not_match(code, changes):
    other = side("the checkpoint", units="degrees")
    assert codes(check_match(side(**changes), other, needs_tasks=True)) == [code]


def test_cameras_of_another_name_come_with_the_map_that_mends_it():
    found = check_match(side(cameras={"observation.images.top": (3, 480, 640)}), side("the checkpoint"))
    assert json.loads(found[0].fix.partition("=")[2].strip("'")) == {"observation.images.top": LAPTOP}
    renamed = {"observation.images.top": LAPTOP}
    assert check_match(side(cameras={"observation.images.top": (3, 480, 640)}), side("c"), renamed) == []


def test_radians_against_degrees_are_told_by_the_statistics():
    stats = {"mean": np.zeros(6), "std": np.full(6, 30 / 57.3)}
    found = check_match(side(stats={"action": stats, "observation.state": stats}), side("the checkpoint"))
    assert codes(found) == ["match.units"] and "radians" in found[0].message


def test_statistics_from_another_calibration():
    stats = {"mean": np.array([0, 0, 180.0, 0, 0, 0]), "std": np.full(6, 30.0)}
    found = check_match(side(stats={"action": stats}), side("the checkpoint"))
    assert codes(found) == ["match.statistics"] and found[0].evidence["joints"] == [2]


def test_the_facts_of_a_trained_checkpoint_are_those_of_its_dataset(trained, dataset_root):  # noqa: F811
    data, checkpoint = dataset_facts(check_reading(dataset_root)[0]), check_checkpoint(trained).facts
    assert checkpoint.joints == data.joints == JOINTS and checkpoint.fps == data.fps
    assert checkpoint.tasks == data.tasks and checkpoint.cameras == data.cameras


# --- plan and run ---------------------------------------------------------------------------------------------

PLAN = DoctorConfig(steps=100_000, batch_size=8, save_freq=20_000)


def test_a_chunk_longer_than_the_episodes():
    assert codes(training.check_chunk(ACTConfig(device="cpu"), side(episode_lengths=[60] * 5))) == [
        "plan.chunk_episode"
    ]


def test_a_plan_followed_blindly_for_too_long():
    assert codes(training.check_chunk(ACTConfig(device="cpu"), side(fps=10))) == ["plan.open_loop"]


def test_a_schedule_that_ends_long_before_the_run():
    assert codes(training.check_schedule(SmolVLAConfig(device="cpu"), 100_000)) == ["plan.schedule_short"]
    assert training.check_schedule(SmolVLAConfig(device="cpu"), 20_000) == []


def test_a_warm_up_longer_than_the_run():
    policy = SimpleNamespace(get_scheduler_preset=lambda: SimpleNamespace(num_warmup_steps=500))
    assert codes(training.check_schedule(policy, 400)) == ["plan.warmup"]


def test_a_run_that_does_not_see_the_data_once_and_is_saved_too_late():
    plan = DoctorConfig(steps=100, batch_size=4, save_freq=200)
    assert codes(training.check_plan(plan, ACTConfig(device="cpu"), side())) == ["plan.epochs", "plan.save_freq"]


def test_a_batch_larger_than_the_dataset():
    plan = DoctorConfig(steps=100, batch_size=5000)
    assert "plan.batch" in codes(training.check_amount(plan, side()))


def test_memory_that_does_not_suffice():
    policy = ACTConfig(device="cpu", input_features={LAPTOP: PolicyFeature(FeatureType.VISUAL, (3, 480, 640))})
    found = training.check_memory(policy, 4096, 50_000_000, 8 * 2**30)
    assert codes(found) == ["plan.memory"] and "--gradient_accumulation_steps" in found[0].fix
    assert training.check_memory(policy, 8, 50_000_000, 8 * 2**30) == []


def with_metrics(folder: Path, rows):
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return codes(training.check_run(folder))


def rows_of(losses, **more):
    return [{"step": 10 * i, "loss": v, "lr": 1e-4, **more} for i, v in enumerate(losses)]


def test_a_run_that_went_well(tmp_path):
    assert with_metrics(tmp_path, rows_of(np.geomspace(5, 0.1, 50), dataloading_s=0.01, update_s=0.1)) == []


def test_a_run_without_numbers(tmp_path):
    assert codes(training.check_run(tmp_path)) == ["run.no_metrics"]


def test_a_loss_that_does_not_fall(tmp_path):
    assert with_metrics(tmp_path, rows_of([1.0, 1.1] * 20)) == ["run.loss_flat"]


def test_a_loss_that_is_no_number(tmp_path):
    assert with_metrics(tmp_path, rows_of([1.0, float("nan")])) == ["run.loss_nan"]


def test_a_loader_that_is_too_slow(tmp_path):
    assert with_metrics(tmp_path, rows_of(np.geomspace(5, 0.1, 50), dataloading_s=1.0, update_s=0.1)) == [
        "run.data_bound"
    ]


def test_a_policy_that_learns_by_heart(tmp_path):
    held_out = [{"step": s, "eval/loss": v} for s, v in ((10, 1.0), (20, 0.5), (30, 0.9))]
    assert with_metrics(tmp_path, rows_of(np.geomspace(5, 0.1, 50)) + held_out) == ["run.overfit"]


# --- the command ----------------------------------------------------------------------------------------------


def test_an_unknown_flag_names_the_nearest():
    with pytest.raises(ValueError, match="--dataset.root"):
        parse(["--dataset.rot=x"])


def test_the_command_prints_json_and_exits_with_the_severity(tmp_path):
    script = Path(__file__).parents[2] / "lerobot" / "scripts" / "doctor.py"
    command = [sys.executable, str(script), f"--policy.path={tmp_path}", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert "checkpoint.absent" in [f["code"] for f in json.loads(done.stdout)]


def test_all_findings_come_at_once(run, data, monkeypatch):
    monkeypatch.setattr(environment, "check_import_clash", lambda *_: [])
    (model(run) / "model.safetensors").write_bytes(b"cut")
    edit_json(data / "meta" / "info.json", lambda info: info.update(fps=15))
    next((data / "videos").rglob("*0.mp4")).write_bytes(b"no video")
    cfg = DoctorConfig(DoctorDataset(str(data)), DoctorPolicy(str(run)), batch_size=2)
    found = set(codes(examine(cfg)))
    assert {"checkpoint.damaged", "checkpoint.unreadable", "match.fps", "dataset.decode"} <= found


def test_nan_statistics_are_told(run):
    file = next(model(run).glob("policy_pre*.safetensors"))
    stats = load_file(file)
    stats["action.std"] = torch.full((6,), float("inf"))
    save_file(stats, file)
    assert "checkpoint.statistics" in codes(check_checkpoint(run).findings)


def test_what_was_examined_is_told(tmp_path):
    cfg, robot = parse([f"--dataset.root={tmp_path}", "--robot.type=koch_sim"])
    told = examined(cfg, robot)
    assert f"dataset: {tmp_path}" in told and "robot: koch_sim" in told
    assert f"lerobot {lerobot.__version__} from" in told and f"torch {torch.__version__}" in told
