"""`dataset.hf_dataset`, used as LeRobot's scripts use the table of the library `datasets`."""

import numpy as np
import pytest
import torch

from lerobot.common.datasets.lerobot_dataset import LeRobotDataset
from tests.datasets.conftest import features, record


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return LeRobotDataset(
        root=record(tmp_path_factory.mktemp("v") / "set", (5, 8), feature_set=features(video=1, image=1)).root
    )


def test_rows_columns_and_batches(dataset):
    table = dataset.hf_dataset
    assert len(table) == table.num_rows == 13 and "action" in table.column_names
    assert "observation.images.cam0" not in table.column_names  # a video has no column
    row = table[6]
    assert row["episode_index"] == 1 and torch.equal(row["action"], dataset[6]["action"])
    assert torch.equal(row["observation.images.cam1"], dataset[6]["observation.images.cam1"])
    assert torch.equal(table[-1]["action"], dataset[12]["action"])
    assert torch.equal(torch.stack(table["action"]), torch.stack([dataset[i]["action"] for i in range(13)]))
    assert torch.stack(table[2:5]["timestamp"]).tolist() == torch.stack(table["timestamp"])[2:5].tolist()
    assert torch.stack(table["frame_index"][[0, 7]]).tolist() == [0, 2]
    assert np.asarray(table["index"]).tolist() == [int(r["index"]) for r in table] == list(range(13))
    assert [len(batch["index"]) for batch in table.iter(5)] == [5, 5, 3]
    with pytest.raises(IndexError, match="13 rows"):
        table[13]
    with pytest.raises(KeyError, match="there are"):
        table["nothing"]


def test_views_of_the_table(dataset):
    table = dataset.hf_dataset
    assert torch.stack(table.select([7, 1])["index"]).tolist() == [7, 1]
    assert torch.stack(table.select(range(3, 6)).select([2])["index"]).tolist() == [5]
    assert table.select_columns(["index", "action"]).column_names == ["index", "action"]
    assert "action" not in table.remove_columns("action")[0]
    assert len(table.filter(lambda row: row["episode_index"] == 0)) == 5
    assert len(table.filter(lambda frame: frame < 2, input_columns="frame_index")) == 4
    assert table.unique("episode_index") == [0, 1]
    assert isinstance(table.with_format("numpy")[0]["action"], np.ndarray)
    assert table.with_format(None)[3]["frame_index"] == 3 and type(table.with_format(None)[3]["index"]) is int
    doubled = table.with_transform(lambda batch: {"index": [2 * i for i in batch["index"]]})
    assert doubled[4] == {"index": torch.tensor(8)}
    table.set_transform(lambda batch: {"n": [len(batch["index"])] * len(batch["index"])})
    assert dataset.hf_dataset[0] == {"n": 1} and dataset[0]["index"] == 0
    table.set_transform(None)
    with pytest.raises(ValueError, match="Unknown format"):
        table.with_format("jax")


def test_the_table_follows_what_is_recorded(tmp_path):
    from tests.datasets.conftest import record_episode

    dataset = record(tmp_path / "set", (3,))
    assert len(dataset.hf_dataset) == 3
    record_episode(dataset, 1, 4)
    assert len(dataset.hf_dataset) == 7
