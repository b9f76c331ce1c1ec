"""Features of a frozen network: the same losses from the store, and no wrong record is ever trained on."""

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from lerobot.common.datasets.edit import Edit, VideoChange, delete_episodes, edit_dataset, merge_datasets
from lerobot.common.datasets.frame_store import FrameStoreError
from lerobot.common.datasets.lerobot_dataset import LeRobotDataset
from lerobot.common.policies import SmolVLAConfig
from lerobot.common.training import frozen_features
from lerobot.common.training.frozen_features import FrozenFeaturesError, pad_records
from lerobot.configs.default import DatasetConfig
from lerobot.scripts.train import train

TINY = {
    "text_config": {"hidden_size": 48, "intermediate_size": 64, "num_attention_heads": 2, "num_key_value_heads": 1},
    "vision_config": {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2},
}
TINY["text_config"]["head_dim"] = 24


@pytest.fixture(scope="session")
def two_tasks(tmp_path_factory):
    """Three episodes of noise with one camera; tasks of different lengths."""
    root = tmp_path_factory.mktemp("data") / "tasks"
    vector = {"dtype": "float32", "shape": (6,), "names": [f"joint_{i}" for i in range(6)]}
    picture = {"dtype": "video", "shape": (64, 64, 3), "names": ["height", "width", "channels"]}
    features = {"observation.state": vector, "action": vector, "observation.images.laptop": picture}
    dataset = LeRobotDataset.create("tasks", 30, root=root, features=features)
    rng = np.random.default_rng(0)
    for task in ("Push.", "Pick up the red cube and put it into the tray.", "Push."):
        for _ in range(9):
            frame = {key: rng.normal(size=6).astype(np.float32) for key in ("observation.state", "action")}
            picture = rng.integers(0, 255, (64, 64, 3), dtype=np.uint8)
            dataset.add_frame({**frame, "observation.images.laptop": picture, "task": task})
        dataset.save_episode()
    return root


@pytest.fixture
def config(make_config, two_tasks, tmp_path):
    """A run of a tiny SmolVLA whose vision-language model is frozen."""

    def make(mode, run="run", **policy):
        settings = {"num_vlm_layers": 2, "chunk_size": 5, "n_action_steps": 5, "num_steps": 2, "vlm_config": TINY}
        settings |= {"resize_imgs_with_padding": (64, 64), "optimizer_lr": 1e-3, "device": "cpu", **policy}
        tiny = SmolVLAConfig(vlm_model_name="smolvla_mini", frozen_features=mode, **settings)
        cfg = make_config(policy=tiny, dataset=DatasetConfig(root=str(two_tasks)), steps=6, output_dir=tmp_path / run)
        cfg.features.dir, cfg.features.batch_size, cfg.log_freq = str(tmp_path / "features"), 4, 1
        return cfg

    return make


@pytest.fixture(autouse=True)
def random_weights(monkeypatch):
    """Frozen parts may be random here: what counts is that they stay the same."""
    monkeypatch.setattr(
        "lerobot.common.policies.smolvla.modeling_smolvla.SmolVLAPolicy.prepare_from_zero", lambda c: None
    )


def losses(cfg):
    train(cfg)
    lines = (cfg.output_dir / "metrics.jsonl").read_text().splitlines()
    return [entry["loss"] for entry in map(json.loads, lines) if "loss" in entry]


def only_store(cfg):
    (folder,) = os.scandir(cfg.features.dir)
    return folder


def record_filling(monkeypatch):
    """A list that gets the episode of every batch of records that is written from now on."""
    written, write = [], frozen_features._write
    monkeypatch.setattr(
        frozen_features, "_write", lambda *a: written.append(int(a[1]["episode_index"][0])) or write(*a)
    )
    return written


@pytest.mark.parametrize("mode", ["vision", "prefix"])
def test_losses_are_those_of_no_store(config, mode, monkeypatch):
    expected = losses(config("none", "plain"))
    found = losses(config(mode, mode))
    assert len(found) == 6 and found == pytest.approx(expected, rel=1e-5)
    monkeypatch.setattr(frozen_features, "_write", lambda *a: pytest.fail("the store was filled again"))
    assert losses(config(mode, "again")) == found


@pytest.mark.parametrize("gigabytes", [1.0, 1e-6])
def test_losses_are_the_same_from_a_store_in_memory(config, gigabytes, caplog):
    expected = losses(config("prefix", "disk"))
    cfg = config("prefix", "memory")
    cfg.features.device_gb = gigabytes  # of a GPU; here of memory
    with caplog.at_level("INFO"):
        assert losses(cfg) == expected
    assert ("kept on cpu" if gigabytes == 1.0 else "too large for cpu") in caplog.text


def test_nothing_is_decoded_or_computed_while_training(config, monkeypatch):
    losses(config("prefix", "fill"))
    monkeypatch.setattr(frozen_features, "spot_check", lambda *a: None)
    seen, counts, pictures = [], [], LeRobotDataset._pictures
    monkeypatch.setattr(LeRobotDataset, "_pictures", lambda *a: seen.append(a) or pictures(*a))
    for steps in (2, 20):
        cfg = config("prefix", f"{steps} steps")
        cfg.steps = steps
        losses(cfg)
        counts.append(len(seen))
        seen.clear()
    assert counts[0] == counts[1]  # some at the start: the probe, the reference pictures of the cameras


def test_subset_of_episodes_shares_the_store(config, monkeypatch):
    cfg = config("vision", "some")
    cfg.dataset.episodes = [1]
    losses(cfg)
    written, write = [], frozen_features._write
    monkeypatch.setattr(
        frozen_features, "_write", lambda *a: written.append(int(a[1]["episode_index"][0])) or write(*a)
    )
    losses(config("vision", "all"))
    assert sorted(set(written)) == [0, 2]
    only_store(cfg)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train_expert_only": False}, "trains what it would keep"),
        ({"image_transforms": True}, "augmentation"),
    ],
)
def test_inexact_modes_are_refused(config, change, message, caplog):
    augment = change.pop("image_transforms", False)
    for mode in ("prefix", "auto"):
        cfg = config(mode, mode, **change)
        cfg.dataset.image_transforms.enable = augment
        if mode == "auto":
            with caplog.at_level("INFO"):
                losses(cfg)
            assert "Frozen features: none" in caplog.text and message in caplog.text
        else:
            with pytest.raises(FrozenFeaturesError, match=message):
                losses(cfg)


def test_auto_takes_what_fits(config, monkeypatch, caplog):
    def chosen(**limits):
        cfg = config("auto", f"run{len(caplog.records)}")
        for name, value in limits.items():
            setattr(cfg.features, name, value)
        cfg.steps = limits.pop("steps", 8)
        with caplog.at_level("INFO"):
            losses(cfg)
        return next(r.args[0] for r in reversed(caplog.records) if r.msg.startswith("Frozen features: %s ("))

    assert chosen() == "prefix"
    assert chosen(max_gb=1e-9) == "none"
    monkeypatch.setattr(frozen_features, "available_memory", lambda: 0)
    assert chosen() == "vision"  # read from the disk: the smaller one
    assert chosen(steps=1) == "none"  # fewer samples than frames


@pytest.mark.parametrize("change", ["weights", "records", "dataset"])
def test_what_changed_is_never_trained_on(config, change, monkeypatch, two_tasks, tmp_path):
    cfg = config("vision")
    losses(cfg)
    store = only_store(cfg).path
    if change == "records":
        path = os.path.join(store, "000.bin")
        size = os.path.getsize(path)
        with open(path, "r+b") as file:
            file.write(os.urandom(size))
        with pytest.raises(FrameStoreError, match="damaged"):
            losses(config("vision", "again"))
        return
    other = config("vision", "again")
    if change == "weights":
        other.seed += 1  # other random weights
    else:
        other.dataset.root = use_copy(two_tasks, tmp_path / "copy", overwrite_video)
    losses(other)
    assert len(list(os.scandir(cfg.features.dir))) == 2


def use_copy(root, copy, change):
    """A copy of a dataset after `change(its folder)`; returns the folder."""
    shutil.copytree(root, copy)
    change(copy)
    return str(copy)


def touch(root):
    """Give every file the time of now."""
    for path in root.rglob("*"):
        path.touch()


def overwrite_video(root):
    """Put the video of episode 2 in the place of that of episode 1, which is as long."""
    video = next(root.rglob("episode_000001.mp4"))
    shutil.copyfile(video.with_name("episode_000002.mp4"), video)


def swap_task(root):
    """Give the frames of episode 0 the other task, in the data alone."""
    path = next(root.rglob("episode_000000.parquet"))
    table = pq.read_table(path)
    place = table.column_names.index("task_index")
    pq.write_table(table.set_column(place, "task_index", pa.array([1] * len(table), pa.int64())), path)


@pytest.mark.parametrize("mode, filled", [("prefix", {0}), ("vision", set())])
def test_frames_of_another_task_are_filled_again_where_it_counts(
    config, two_tasks, tmp_path, monkeypatch, mode, filled, caplog
):
    losses(config(mode))
    copy = use_copy(two_tasks, tmp_path / "copy", swap_task)
    again, plain = config(mode, "again"), config("none", "plain")
    again.dataset.root = plain.dataset.root = copy
    written = record_filling(monkeypatch)
    caplog.clear()
    with caplog.at_level("INFO"):
        assert losses(again) == pytest.approx(losses(plain), rel=1e-5)
    assert set(written) == filled
    only_store(again)
    assert ("1 of them had other pictures, times or tasks" in caplog.text) is bool(filled)


def test_an_interrupted_filling_again_continues(config, two_tasks, tmp_path, monkeypatch):
    losses(config("prefix"))
    copy = use_copy(two_tasks, tmp_path / "copy", swap_task)
    write, calls = frozen_features._write, []

    def stop(*args):
        calls.append(write(*args))
        if len(calls) == 2:  # of the three parts of the episode
            raise KeyboardInterrupt

    monkeypatch.setattr(frozen_features, "_write", stop)
    again, plain = config("prefix", "again"), config("none", "plain")
    again.dataset.root = plain.dataset.root = copy
    with pytest.raises(KeyboardInterrupt):
        losses(again)
    monkeypatch.setattr(frozen_features, "_write", write)
    assert losses(again) == pytest.approx(losses(plain), rel=1e-5)


def test_filling_says_what_sets_the_store_apart(config, two_tasks, tmp_path, caplog):
    def message(cfg):
        caplog.clear()
        with caplog.at_level("INFO"):
            losses(cfg)
        return [r.getMessage() for r in caplog.records if r.msg.startswith("Filling")]

    (first,) = message(config("vision"))
    assert "3 episodes, 27 frames: it is the first store in" in first
    assert message(config("vision", "same")) == []
    copy = use_copy(two_tasks, tmp_path / "copy", overwrite_video)
    other = config("vision", "other")
    other.dataset.root = copy
    name = only_store(other).name
    (second,) = message(other)
    assert f"the most similar store there, '{name}', was made from other picture files" in second


def append(root, output):
    """The dataset, and behind it itself with another video in its second episode."""
    other = use_copy(root, output.with_name("other"), overwrite_video)
    merge_datasets([LeRobotDataset(root=root), LeRobotDataset(root=other)], output)


EDITS = {
    "append": (append, {4}),
    "delete": (lambda root, output: delete_episodes(LeRobotDataset(root=root), [2], output), set()),
    "other words": (
        lambda root, output: edit_dataset(LeRobotDataset(root=root), output, Edit(tasks={"Push.": "Pull."})),
        {0, 1, 2},  # the prompts of all tasks are checked together
    ),
    "other codec": (
        lambda root, output: edit_dataset(LeRobotDataset(root=root), output, Edit(video=VideoChange(crf=40))),
        {0, 1, 2},
    ),
}


@pytest.mark.parametrize("edit", EDITS)
def test_after_an_edit_only_what_changed_is_computed(config, two_tasks, tmp_path, monkeypatch, edit):
    change, changed = EDITS[edit]
    losses(config("prefix"))
    change(two_tasks, tmp_path / "edited")
    again, plain = config("prefix", "again"), config("none", "plain")
    again.dataset.root = plain.dataset.root = str(tmp_path / "edited")
    written = record_filling(monkeypatch)
    assert losses(again) == pytest.approx(losses(plain), rel=1e-5)
    assert set(written) == changed


@pytest.mark.parametrize("fault", ["damaged", "without a readable manifest", "being filled", "of other weights"])
def test_nothing_is_copied_from_a_store_that_is(config, two_tasks, tmp_path, monkeypatch, fault):
    cfg, again = config("prefix"), config("prefix", "again")
    losses(cfg)
    store = only_store(cfg).path
    again.dataset.root = str(delete_episodes(LeRobotDataset(root=two_tasks), [2], tmp_path / "edited"))
    again.seed += fault == "of other weights"
    if fault == "damaged":
        with open(os.path.join(store, "000.bin"), "r+b") as file:
            file.write(b"other")  # of the first episode
    if fault == "without a readable manifest":
        Path(store, "store.json").write_text("{")
    written = record_filling(monkeypatch)
    with open(os.path.join(store, "lock")) as lock:
        if fault == "being filled":
            fcntl.flock(lock, fcntl.LOCK_EX)
        losses(again)
    assert set(written) == ({0} if fault == "damaged" else {0, 1})


def test_a_store_that_moved_with_its_dataset_is_not_filled_again(config, two_tasks, tmp_path, monkeypatch):
    cfg = config("prefix")
    expected = losses(cfg)
    monkeypatch.setattr(frozen_features, "_write", lambda *a: pytest.fail("the store was filled again"))
    moved = config("prefix", "moved")
    moved.dataset.root = use_copy(two_tasks, tmp_path / "copy", touch)
    moved.features.dir = str(shutil.move(cfg.features.dir, tmp_path / "elsewhere"))
    assert losses(moved) == expected


def test_each_precision_has_its_own_store(config):
    for run, half in (("float", False), ("half", True), ("float again", False)):
        losses(config("prefix", run, use_amp=half))
    assert len(os.listdir(config("prefix").features.dir)) == 2


def test_one_changed_byte_of_any_episode_is_found_at_the_next_start(config, monkeypatch):
    losses(config("vision"))
    monkeypatch.setattr(frozen_features, "spot_check", lambda *a: None)  # it may look at other frames
    losses(config("vision", "untouched"))
    path = os.path.join(only_store(config("vision")).path, "000.bin")
    with open(path, "r+b") as file:
        file.seek(-1, os.SEEK_END)
        last = file.read(1)[0]
        file.seek(-1, os.SEEK_END)
        file.write(bytes([last ^ 1]))
    with pytest.raises(FrameStoreError, match="damaged .episode 2"):
        losses(config("vision", "again"))


def test_wrong_records_with_right_checksums_are_found(config, monkeypatch):
    compute = frozen_features.FeatureComputer.__call__

    def off(self, raw, mode):
        found = compute(self, raw, mode)
        return {k: v * 1.1 if v.is_floating_point() else v for k, v in found.items()}

    monkeypatch.setattr(frozen_features, "spot_check", lambda *a: None)
    monkeypatch.setattr(frozen_features.FeatureComputer, "__call__", off)
    losses(config("vision", "wrong"))
    monkeypatch.undo()
    monkeypatch.setattr(
        "lerobot.common.policies.smolvla.modeling_smolvla.SmolVLAPolicy.prepare_from_zero", lambda c: None
    )
    with pytest.raises(FrameStoreError, match="does not hold what this run computes"):
        losses(config("vision", "again"))


def test_auto_goes_on_without_a_store_that_is_not_right(config, monkeypatch, caplog):
    def run(mode):
        cfg = config(mode, mode)
        cfg.steps = 7  # as many samples as frames, at least
        return losses(cfg)

    def wrong(*args):
        raise FrameStoreError("The store is wrong.")

    monkeypatch.setattr(frozen_features, "spot_check", wrong)
    assert run("auto") == run("none")
    assert "The store is wrong. Going on without it." in caplog.text


@pytest.mark.parametrize("how", ["deleted", "changed"])
def test_store_that_changes_under_a_run_stops_it(config, how, monkeypatch):
    cfg, calls = config("vision"), []
    index = frozen_features.FrozenFeatures.__call__

    def meddle(self, frames):
        calls.append(1)
        if len(calls) == 3:
            path = self.store.root / "000.bin"
            path.unlink() if how == "deleted" else os.truncate(path, os.path.getsize(path) - 1)
        return index(self, frames)

    monkeypatch.setattr(frozen_features.FrozenFeatures, "__call__", meddle)
    with pytest.raises(FrameStoreError, match="changed or deleted"):
        losses(cfg)


def test_filling_continues_after_a_stop(config, monkeypatch):
    done, write = [], frozen_features._write

    def stop(*args):
        if len(done) == 4:  # in the second episode
            raise OSError(28, "No space left on device")
        done.append(write(*args))

    monkeypatch.setattr(frozen_features, "_write", stop)
    with pytest.raises(OSError, match="No space"):
        losses(config("prefix", "first"))
    monkeypatch.setattr(frozen_features, "_write", lambda *a: done.append(write(*a)))
    del done[:]
    expected = losses(config("none", "plain"))
    assert losses(config("prefix", "second")) == pytest.approx(expected, rel=1e-5)
    assert len(done) == 6  # two episodes of nine frames, four at a time: not the first


def test_full_disk_while_filling(config, monkeypatch):
    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("lerobot.common.datasets.frame_store.os.fsync", full)
    with pytest.raises(FrameStoreError, match="Filling .* stopped: No space left on device.*--features.dir"):
        losses(config("prefix"))


def test_a_disk_without_room_for_the_store_names_the_folder_and_the_flag(config, monkeypatch):
    frame_store = "lerobot.common.datasets.frame_store"
    usage = shutil.disk_usage("/")._replace(free=100)
    with monkeypatch.context() as patch, pytest.raises(FrameStoreError, match=r"needs 0.\d MB .*--features.dir"):
        patch.setattr(f"{frame_store}.shutil.disk_usage", lambda path: usage)
        losses(config("vision", "small"))

    def full(*args):
        raise OSError(28, "No space left on device")

    shutil.rmtree(config("vision").features.dir)
    monkeypatch.setattr(f"{frame_store}.write_json", full)  # not even room for the manifest
    with pytest.raises(FrameStoreError, match="Filling .* stopped: No space left on device.*--features.dir"):
        losses(config("vision", "full"))


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 4 MB; skips where this process may not mount one."""
    folder = tmp_path / "small disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
    try:
        if subprocess.run(mount, capture_output=True, timeout=60).returncode:
            pytest.skip("mounting needs root")
    except FileNotFoundError:
        pytest.skip("no mount command")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True, timeout=60)


@pytest.mark.slow
def test_a_disk_that_really_fills_up_while_the_store_is_filled(config, small_disk, monkeypatch):
    """Somebody else takes the room: the message names the folder; with room again the same store goes on."""
    ballast, write, calls = small_disk / "ballast", frozen_features._write, []

    def crowded(*args):
        calls.append(1)
        if len(calls) == 4:
            with pytest.raises(OSError, match="No space"), ballast.open("wb", buffering=0) as file:
                while True:
                    file.write(bytes(4096))
        return write(*args)

    cfg = config("prefix")
    cfg.features.dir = str(small_disk / "features")
    monkeypatch.setattr(frozen_features, "_write", crowded)
    with pytest.raises(FrameStoreError, match="Filling .* stopped: No space left on device.*--features.dir"):
        losses(cfg)
    ballast.unlink()
    again = config("prefix", "again")
    again.features.dir = cfg.features.dir
    assert losses(again) == pytest.approx(losses(config("none", "plain")), rel=1e-5)
    only_store(again)


def test_one_fills_at_a_time(config, tmp_path):
    cfg = config("vision")
    losses(cfg)
    path = os.path.join(only_store(cfg).path, "lock")
    code = "import fcntl, sys; f = open(sys.argv[1]); fcntl.flock(f, fcntl.LOCK_SH); print('held', flush=True); input()"
    other = subprocess.Popen(
        [sys.executable, "-c", code, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert other.stdout.readline() == "held\n"
    with open(os.path.join(only_store(cfg).path, "done.bin"), "r+b") as file:
        file.write(b"\0")
    try:
        with pytest.raises(FrameStoreError, match="used by another process"):
            losses(config("vision", "second"))
    finally:
        other.send_signal(signal.SIGKILL)
        other.communicate()


def test_records_are_padded_with_zeros():
    padded = pad_records(torch.ones(2, 3, 1), (4, 2))
    assert padded.shape == (2, 4, 2) and padded.sum() == 6 and (padded[:, :3, :1] == 1).all()


def test_command_lists_checks_and_removes(config, capsys, monkeypatch):
    from lerobot.scripts import features

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["features.py", *arguments, "--dir", cfg.features.dir])
        features.main()
        return capsys.readouterr().out

    cfg = config("vision")
    losses(cfg)
    store = only_store(cfg)
    assert f"{store.name}  smolvla vision" in call("list") and "3 of 3 episodes" in call("list")
    assert "3 episodes as they were written" in call("verify")
    with open(os.path.join(store.path, "000.bin"), "r+b") as file:
        file.write(b"other")
    with pytest.raises(FrameStoreError, match="episode 0 has another checksum"):
        call("verify", store.name)
    with pytest.raises(FileNotFoundError, match=f"No store 'abc'.*there are: {store.name}"):
        call("remove", "abc")
    assert "Removed" in call("remove", store.name) and not os.path.exists(store.path)
    assert "No stores in" in call("verify")
