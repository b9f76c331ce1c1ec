"""v1.6 to v2.0 to v2.1: a local folder in, a dataset with statistics per episode out."""

import json
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.numpy import save_file

from lerobot.common.datasets.compute_stats import aggregate_stats
from lerobot.common.datasets.lerobot_dataset import LeRobotDataset
from lerobot.common.datasets.recompute import recompute_episode_stats
from lerobot.common.datasets.utils import DatasetError
from lerobot.common.datasets.v2 import convert_dataset_v1_to_v2 as v1_to_v2
from lerobot.common.datasets.v2.old_format import clean_text
from lerobot.common.datasets.v21 import convert_dataset_v20_to_v21 as v20_to_v21
from tests.datasets.conftest import features, record

CAMERA = "observation.images.cam0"


def as_v16(v21: LeRobotDataset, root, texts: bool = False):
    """The same frames as v1.6 stored them."""
    rows = v21.table
    table = {key: pa.array(rows[key].tolist()) for key in ("observation.state", "action")}
    table |= {key: pa.array(rows[key].numpy()) for key in ("timestamp", "frame_index", "episode_index", "index")}
    table = {
        key: a.cast(pa.list_(pa.float32())) if key in ("observation.state", "action") else a for key, a in table.items()
    }
    episodes, times = rows["episode_index"].tolist(), rows["timestamp"].tolist()
    frames = [
        {"path": f"videos/{CAMERA}_episode_{e:06d}.mp4", "timestamp": t} for e, t in zip(episodes, times, strict=True)
    ]
    table[CAMERA] = pa.array(frames)
    if texts:
        table["language_instruction"] = pa.array([f"tf.Tensor(b'do {e}', shape=(), dtype=string)" for e in episodes])
    (root / "data").mkdir(parents=True)
    pq.write_table(pa.table(table), root / "data" / "train-00000-of-00001.parquet")
    (root / "videos").mkdir()
    for episode in set(episodes):
        shutil.copy(v21.meta.video_file(episode, CAMERA), root / f"videos/{CAMERA}_episode_{episode:06d}.mp4")
    (root / "meta_data").mkdir()
    (root / "meta_data/info.json").write_text(json.dumps({"codebase_version": "v1.6", "fps": 10, "video": True}))
    stats = aggregate_stats([recompute_episode_stats(v21, e) for e in v21.episode_indices])
    flat = {
        f"{k}/{n}": np.float32(v[n])
        for k, v in stats.items()
        if k != "task_index"
        for n in ("min", "max", "mean", "std")
    }
    save_file(flat, root / "meta_data/stats.safetensors")
    return root


@pytest.fixture(scope="module")
def v21(tmp_path_factory):
    return LeRobotDataset(root=record(tmp_path_factory.mktemp("new") / "set", (5, 8), feature_set=features()).root)


def test_v16_becomes_v20_becomes_v21(v21, tmp_path):
    root = as_v16(v21, tmp_path / "v16")
    v1_to_v2.convert(root, tmp_path / "v20", single_task="Grasp it.")
    v20 = LeRobotDataset(root=tmp_path / "v20")
    assert v20.meta.info["codebase_version"] == "v2.0" and v20.meta.robot_type == "unknown"
    assert v20.features["action"]["names"] == {"motors": [f"motor_{i}" for i in range(6)]}
    assert v20.features[CAMERA]["shape"] == (64, 96, 3) and "video.height" not in v20.features[CAMERA]["video_info"]
    assert "count" not in v20.meta.stats["action"]
    v20_to_v21.convert(v20, tmp_path / "v21")
    new = LeRobotDataset(root=tmp_path / "v21")
    assert not (tmp_path / "v21/meta/stats.json").exists() and new.meta.has_episode_stats
    for index in range(len(v21)):
        left, right = v21[index], new[index]
        assert right["task"] == "Grasp it."
        for key in ("observation.state", "action", "timestamp", "index", CAMERA):
            assert torch.equal(left[key], right[key])
    for name in ("min", "max", "mean", "std"):
        np.testing.assert_allclose(new.stats["action"][name], v21.stats["action"][name], rtol=1e-5)


def test_tasks_from_a_column_and_from_a_file(v21, tmp_path):
    root = as_v16(v21, tmp_path / "v16", texts=True)
    v1_to_v2.convert(root, tmp_path / "column", tasks_col="language_instruction")
    assert LeRobotDataset(root=tmp_path / "column").meta.tasks == {0: "do 0", 1: "do 1"}
    (tmp_path / "tasks.json").write_text(json.dumps({"0": "same", "1": "same"}))
    v1_to_v2.convert(root, tmp_path / "file", tasks_path=tmp_path / "tasks.json", robot_type="koch")
    assert LeRobotDataset(root=tmp_path / "file").meta.tasks == {0: "same"}
    v1_to_v2.convert(root, tmp_path / "single", single_task="ignored")
    assert LeRobotDataset(root=tmp_path / "single")[0]["task"] == "do 0"


def test_what_cannot_be_is_refused(v21, tmp_path):
    root = as_v16(v21, tmp_path / "v16")
    with pytest.raises(ValueError, match="exactly one"):
        v1_to_v2.convert(root, tmp_path / "new")
    with pytest.raises(ValueError, match="no such column"):
        v1_to_v2.convert(root, tmp_path / "new", tasks_col="words")
    (tmp_path / "tasks.json").write_text("{}")
    with pytest.raises(ValueError, match=r"no task for episodes \[0, 1\]"):
        v1_to_v2.convert(root, tmp_path / "new", tasks_path=tmp_path / "tasks.json")
    with pytest.raises(ValueError, match="koch"):
        v1_to_v2.robot_motors("abacus")
    assert not (tmp_path / "new").exists()


def test_statistics_of_other_frames_are_noticed(v21, tmp_path):
    v1_to_v2.convert(as_v16(v21, tmp_path / "v16"), tmp_path / "v20", single_task="x")
    path = tmp_path / "v20/meta/stats.json"
    stats = json.loads(path.read_text())
    stats["action"]["mean"][0] += 1
    path.write_text(json.dumps(stats))
    with pytest.raises(DatasetError, match="mean of 'action'"):
        v20_to_v21.convert(LeRobotDataset(root=tmp_path / "v20"), tmp_path / "v21")


def test_texts_printed_by_tensorflow():
    assert clean_text("tf.Tensor(b'Pick \"it\" up', shape=(), dtype=string)") == 'Pick "it" up'
    assert clean_text("plain") == "plain"
