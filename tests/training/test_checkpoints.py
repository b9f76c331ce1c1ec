"""What a checkpoint is worth: whole or refused, bounded in number, written beside the training."""

import errno
import fcntl
import json
import os
import resource
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from lerobot.common.training.checkpoint import (
    copy_weights,
    read_weights,
    take_snapshot,
    write_snapshot,
    write_weights,
)
from lerobot.common.training.engine import Engine
from lerobot.common.training.manifest import DamagedCheckpointError, damage, newest_whole_checkpoint
from lerobot.common.training.metrics import MetricsFile
from lerobot.common.training.saver import CheckpointSaver, lock_output, number_of_checkpoints
from lerobot.configs import parser
from lerobot.configs.train import TrainPipelineConfig
from lerobot.scripts.train import train
from tests.training.helpers import losses, same, weights


def resume(run, *flags):
    train(parser.parse(TrainPipelineConfig, ["--resume=true", f"--output_dir={run}", *flags]))


def test_a_damaged_checkpoint_is_refused_by_name_and_passed_over_by_folder(make_config, caplog):
    cfg = make_config()
    train(cfg)
    final = weights(cfg.output_dir, 4)
    folder = cfg.output_dir / "checkpoints" / "000004"
    file = folder / "training_state" / "optimizer_state.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    assert damage(folder) == ["training_state/optimizer_state.safetensors has other contents than were written"]
    with pytest.raises(DamagedCheckpointError, match="000002"):
        train(parser.parse(TrainPipelineConfig, ["--resume=true", f"--config_path={folder}"]))
    resume(cfg.output_dir)
    assert "passed over" in caplog.text
    assert damage(folder) == [] and same(weights(cfg.output_dir, 4), final)


def test_what_an_interrupted_write_left_is_not_offered_and_is_removed(make_config):
    cfg = make_config(steps=2)
    train(cfg)
    folder = cfg.output_dir / "checkpoints"
    (folder / ".000004.1234.part" / "pretrained_model").mkdir(parents=True)
    assert newest_whole_checkpoint(cfg.output_dir)[0].name == "000002"
    resume(cfg.output_dir, "--steps=3")
    assert sorted(p.name for p in folder.iterdir()) == ["000002", "000003", "last"]


def test_only_the_newest_and_the_best_are_kept(make_config, dataset_root):
    cfg = make_config(steps=5, save_freq=1, eval_steps=1, save_total_limit=1, save_best="eval/loss")
    cfg.dataset.eval_split = 0.34
    train(cfg)
    folder = cfg.output_dir / "checkpoints"
    best = json.loads((folder / "best.json").read_text())
    rows = [json.loads(line) for line in (cfg.output_dir / "metrics.jsonl").read_text().splitlines()]
    lowest = min((row["eval/loss"], row["step"]) for row in rows if "eval/loss" in row)
    assert best == {"metric": "eval/loss", "value": lowest[0], "checkpoint": f"{lowest[1]:06d}"}
    assert (folder / "best").readlink().name == best["checkpoint"] and damage(folder / "best") == []
    assert {p.name for p in folder.iterdir() if p.name.isdigit()} <= {"000005", "000004", best["checkpoint"]}


def test_two_runs_cannot_write_to_one_folder(make_config):
    cfg = make_config(steps=2)
    train(cfg)
    with lock_output(cfg.output_dir), pytest.raises(OSError, match="Another run"):
        resume(cfg.output_dir, "--steps=3")
    resume(cfg.output_dir, "--steps=3")


def test_a_write_that_fails_does_not_stop_the_training_but_the_last_one_is_told(make_config, monkeypatch, caplog):
    import lerobot.common.training.saver as saver

    def full(snapshot, target):
        if snapshot.step == 2:
            raise OSError(28, "No space left on device")
        write_snapshot(snapshot, target)

    monkeypatch.setattr(saver, "write_snapshot", full)
    cfg = make_config()
    train(cfg)
    assert "No space left" in caplog.text and len(losses(cfg.output_dir)) == 4
    monkeypatch.setattr(saver, "write_snapshot", lambda *_: full(type("S", (), {"step": 2}), None))
    with pytest.raises(OSError, match="--output_dir"):
        train(make_config(output_dir=cfg.output_dir.with_name("other"), save_freq=0))


def test_the_last_write_is_told_where_the_best_one_is_kept(make_config, monkeypatch):
    import lerobot.common.training.saver as saver

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(saver, "write_snapshot", full)
    cfg = make_config(steps=2, eval_steps=2, save_best="eval/loss")
    cfg.dataset.eval_split = 0.34
    cfg.validate()
    with closing(CheckpointSaver(cfg, Engine(cfg))) as writer:
        writer.save(SimpleNamespace(step=2))
        with pytest.raises(OSError, match="No space left"):
            writer.consider(2, {"eval/loss": 1.0})


@pytest.mark.parametrize(("steps", "every", "count"), [(4, 2, 2), (5, 2, 3), (5, 100, 1), (5, 0, 1)])
def test_a_run_writes_a_checkpoint_at_its_end(make_config, steps, every, count):
    cfg = make_config(steps=steps, save_freq=every)
    cfg.validate()
    with closing(CheckpointSaver(cfg, Engine(cfg))) as writer:
        assert number_of_checkpoints(cfg) == sum(writer.is_due(step + 1) for step in range(steps)) == count


def test_a_disk_without_locks_is_told_and_used(tmp_path, monkeypatch, caplog):
    def unsupported(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", unsupported)
    lock_output(tmp_path / "run").close()
    assert "No locks available" in caplog.text


def test_a_checkpoint_may_stand_at_the_top_of_a_disk(make_config):
    cfg = make_config(resume=True)
    cfg.checkpoint_path = Path("/mounted")
    cfg._follow_a_moved_run()


def test_saving_works_on_a_copy(make_config, tmp_path):
    cfg = make_config(steps=1)
    cfg.validate()
    policy = torch.nn.Linear(2, 2)
    policy._save_files = lambda folder: None
    optimizer = torch.optim.Adam(policy.parameters())
    policy(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    before = copy_weights(policy)
    snapshot = take_snapshot(1, cfg, policy, optimizer)
    optimizer.step()
    write_snapshot(snapshot, tmp_path / "000001")
    saved = load_file(tmp_path / "000001/pretrained_model/model.safetensors")
    state = load_file(tmp_path / "000001/training_state/optimizer_state.safetensors")
    assert same(saved, before) and not same(saved, policy.state_dict()) and state["state/0/step"] == 1


def test_tensors_that_share_memory_are_stored_once(tmp_path):
    module = torch.nn.ModuleDict({"a": torch.nn.Linear(2, 2, bias=False), "b": torch.nn.Linear(2, 2, bias=False)})
    module["b"].weight = module["a"].weight
    write_weights(copy_weights(module), tmp_path / "model.safetensors")
    assert list(load_file(tmp_path / "model.safetensors")) == ["a.weight"]
    from lerobot.common.policies.pretrained import read_state

    assert same(read_state(tmp_path / "model.safetensors"), module.state_dict())


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_output_folder_is_refused_before_the_first_step(make_config, tmp_path):
    (tmp_path / "fixed").mkdir(mode=0o555)
    with pytest.raises(PermissionError, match="--output_dir"):
        train(make_config(output_dir=tmp_path / "fixed" / "run"))


def test_a_disk_without_room_is_told_before_the_first_step(make_config, monkeypatch):
    import shutil

    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    cfg = make_config()
    with pytest.raises(OSError, match="0.0 MB free"):
        train(cfg)
    assert not (cfg.output_dir / "checkpoints").exists()


def test_the_saver_of_another_process_writes_nothing(make_config):
    cfg = make_config()
    engine = Engine.__new__(Engine)
    engine.rank = 1
    saver = CheckpointSaver(cfg, engine)
    saver.save(None)
    saver.close()
    assert not cfg.output_dir.exists()


def test_lines_that_a_full_disk_did_not_take_are_written_later(make_config, caplog):
    cfg = make_config()
    metrics = MetricsFile(cfg, Engine(cfg))
    metrics.log_eval(1, {"loss": 1.0})
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (30, limits[1]))
    try:
        metrics.log_eval(2, {"loss": 2.0})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "training goes on" in caplog.text and [row["step"] for row in metrics.rows()] == [1]
    metrics.log_eval(3, {"loss": 3.0})
    assert [row["step"] for row in metrics.rows()] == [1, 2, 3]


def test_averaged_weights_that_share_a_tensor_come_back(tmp_path):
    shared = torch.ones(2)
    write_weights({"a": shared, "b": shared, "c": torch.zeros(1)}, tmp_path / "trained.safetensors")
    assert same(read_weights(tmp_path / "trained.safetensors"), {"a": shared, "b": shared, "c": torch.zeros(1)})
