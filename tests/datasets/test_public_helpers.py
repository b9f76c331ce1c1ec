"""Helpers that scripts for LeRobot 0.4 import from `lerobot.datasets.utils`, `.compute_stats` and `.video_utils`."""

import numpy as np
import pytest
import torch
from lerobot.datasets.compute_stats import RunningQuantileStats, get_feature_stats, load_image_as_numpy
from lerobot.datasets.image_writer import image_array_to_pil_image
from lerobot.datasets.push_dataset_to_hub.utils import calculate_episode_data_index
from lerobot.datasets.utils import (
    Backtrackable,
    LookAheadError,
    LookBackError,
    check_version_compatibility,
    create_empty_dataset_info,
    create_lerobot_dataset_card,
    find_float_index,
    get_nested_item,
    get_parquet_num_frames,
    hf_transform_to_torch,
    is_float_in_list,
    item_to_torch,
    load_info,
    serialize_dict,
    update_chunk_file_indices,
    write_info,
)
from lerobot.datasets.video_utils import (
    VideoEncodingManager,
    decode_video_frames_torchvision,
    get_audio_info,
)

from tests.datasets.conftest import frame, record


def test_looking_around_while_iterating():
    numbers = Backtrackable(range(6), history=3, lookahead=2)
    with pytest.raises(LookBackError):
        numbers.peek_back()
    assert numbers.peek_ahead() == 0 and numbers.history() == []
    assert [next(numbers) for _ in range(4)] == [0, 1, 2, 3] and numbers.history() == [1, 2, 3]
    assert numbers.peek_back(2) == 1 and not numbers.can_peek_back(3) and numbers.peek_ahead(2) == 5
    assert numbers.prev() == 3 and numbers.history() == [1, 2] and numbers.peek_ahead() == 3
    assert list(numbers) == [3, 4, 5] and not numbers.can_peek_ahead()
    for n in (1, 3):
        with pytest.raises(LookAheadError):
            numbers.peek_ahead(n)
    for wrong in ({"history": 0, "lookahead": 1}, {"lookahead": 0}):
        with pytest.raises(ValueError, match="at least 1"):
            Backtrackable([], **wrong)


def test_values_become_tensors():
    picture = image_array_to_pil_image(np.full((3, 4, 5), 128, np.uint8))
    columns = hf_transform_to_torch({"a": [[1.0, 2.0]], "text": ["x"], "none": [None], "b": [True], "image": [picture]})
    assert columns["a"][0].dtype == torch.float32 and columns["b"][0].dtype == torch.bool
    assert columns["text"] == ["x"] and columns["none"] == [None]
    assert columns["image"][0].shape == (3, 4, 5) and columns["image"][0].max() == 128 / 255
    item = item_to_torch({"a": np.ones(2), "n": 3, "task": "x"})
    assert item["a"].dtype == torch.float64 and item["n"] == 3 and item["task"] == "x"


def test_small_functions():
    assert find_float_index(0.1, [0.2, 0.1 + 1e-9]) == 1 and find_float_index(0.3, [0.2]) == -1
    assert is_float_in_list(0.2, [0.2]) and not is_float_in_list(0.2, [])
    assert update_chunk_file_indices(0, 2, 4) == (0, 3) and update_chunk_file_indices(0, 3, 4) == (1, 0)
    assert serialize_dict({"a": {"b": torch.ones(2), "c": np.ones(1)}}) == {"a": {"b": [1.0, 1.0], "c": [1.0]}}
    with pytest.raises(NotImplementedError, match="a/b"):
        serialize_dict({"a": {"b": "text"}})
    assert get_nested_item({"a": {"b": 1}}, "a/b") == 1
    index = calculate_episode_data_index({"episode_index": [0, 0, 1, 3, 3, 3]})
    assert index["from"].tolist() == [0, 2, 3] and index["to"].tolist() == [2, 3, 6]
    card = create_lerobot_dataset_card(tags=["koch"], dataset_info={"fps": 30, "total_episodes": 4})
    assert card.data.tags == ["LeRobot", "koch"] and "4 episodes" in card.text
    check_version_compatibility("me/set", version_to_check="v1.6", current_version="v2.1", enforce_breaking_major=False)


def test_an_empty_info_has_the_fields_of_its_version():
    v21, v30 = create_empty_dataset_info("v2.1", 30, "koch", {}, False), create_empty_dataset_info("v3.0", 30, {}, True)
    assert "total_chunks" in v21 and "data_files_size_in_mb" not in v21 and v21["video_path"] is None
    assert "total_chunks" not in v30 and (v30["data_files_size_in_mb"], v30["video_files_size_in_mb"]) == (100, 200)
    assert v30["codebase_version"] == "v3.0" and "{file_index:03d}" in v30["data_path"]


def test_statistics_of_a_stream_are_those_of_its_rows():
    rows = np.random.default_rng(0).normal(size=(600, 2))
    running = RunningQuantileStats()
    for part, scale in zip(np.split(rows, 3), (1, 3, 2), strict=True):
        part *= scale
        running.update(part)
    expected, found = get_feature_stats(rows, 0, False, [0.01, 0.10, 0.50, 0.90, 0.99]), running.get_statistics()
    for name in ("min", "max", "mean", "std", "count"):
        np.testing.assert_allclose(found[name], expected[name])
    width = np.ptp(rows, axis=0) / 5000
    for name in ("q01", "q10", "q50", "q90", "q99"):
        assert (np.abs(found[name] - expected[name]) < 10 * width).all(), name
    with pytest.raises(ValueError, match="length 3"):
        running.update(np.ones((1, 3)))
    with pytest.raises(ValueError, match="two rows"):
        RunningQuantileStats().get_statistics()


def test_pictures_and_metadata_by_the_public_keywords(tmp_path):
    picture = np.arange(4 * 5 * 3, dtype=np.uint8).reshape(4, 5, 3)
    image_array_to_pil_image(picture).save(tmp_path / "a.png")
    read = load_image_as_numpy(fpath=tmp_path / "a.png", dtype=np.float32, channel_first=False)
    np.testing.assert_array_equal(read, (picture / 255.0).astype(np.float32))
    assert load_image_as_numpy(tmp_path / "a.png", np.uint8).shape == (3, 4, 5)


def test_a_recording_that_stops_midway_leaves_whole_episodes(tmp_path):
    dataset = record(tmp_path / "set", lengths=(3,))
    with pytest.raises(KeyboardInterrupt), VideoEncodingManager(dataset):
        dataset.add_frame(frame(dataset, 1, 0))
        raise KeyboardInterrupt
    assert not dataset.has_pending_frames() and dataset.num_episodes == 1
    info = load_info(local_dir=dataset.root)
    write_info({**info, "fps": 20}, local_dir=dataset.root)
    assert load_info(dataset.root)["fps"] == 20
    assert get_parquet_num_frames(dataset.meta.data_file(0)) == 3
    video = dataset.meta.video_file(0, dataset.meta.video_keys[0])
    frames = decode_video_frames_torchvision(video, [0.0, 0.2], tolerance_s=1e-4)
    assert frames.shape[:2] == (2, 3) and 0.5 < frames.max() <= 1
    assert get_audio_info(video) == {"has_audio": False}


def test_tables_of_the_datasets_library(tmp_path):
    datasets = pytest.importorskip("datasets")
    from lerobot.datasets.utils import get_hf_features_from_features, load_nested_dataset

    vector = {"dtype": "float32", "shape": (2,), "names": None}
    features = get_hf_features_from_features({"a": vector, "episode_index": {"dtype": "int64", "shape": (1,)}})
    table = datasets.Dataset.from_dict({"a": [[1, 2], [3, 4]], "episode_index": [0, 1]}, features=features)
    (tmp_path / "chunk-000").mkdir()
    table.to_parquet(tmp_path / "chunk-000/file-000.parquet")
    assert load_nested_dataset(tmp_path, features=features, episodes=[1])["a"][0] == [3.0, 4.0]


def test_the_keywords_of_a_recording(tmp_path):
    from lerobot.datasets.lerobot_dataset import LeRobotDataset, LeRobotDatasetMetadata

    vector = {"dtype": "float32", "shape": (2,), "names": ["a", "b"]}
    buffers = {"batch_encoding_size": 2, "metadata_buffer_size": 10, "streaming_encoding": True}
    dataset = LeRobotDataset.create("me/set", 10, {"action": vector}, tmp_path / "set", use_videos=False, **buffers)
    dataset.add_frame({"action": np.zeros(2, np.float32), "task": "wave"})
    dataset.save_episode(parallel_encoding=False)
    buffer = dataset.create_episode_buffer()
    assert (buffer["size"], buffer["task"], buffer["action"], buffer["episode_index"]) == (0, [], [], 1)
    assert dataset.create_episode_buffer(7)["episode_index"] == 7
    dataset.meta.save_episode_tasks(["wave", "push"])
    assert list(dataset.meta.tasks.values()) == ["wave", "push"]
    with pytest.raises(ValueError, match="once"):
        dataset.meta.save_episode_tasks(["a", "a"])
    assert len(LeRobotDataset("me/set", root=tmp_path / "set", batch_encoding_size=1, encoder_threads=2)) == 1
    with pytest.raises(TypeError, match="batch_encoding"):
        LeRobotDataset("me/set", root=tmp_path / "set", batch_encoding=1)
    options = ([], {"root": tmp_path / "a"}), ([tmp_path / "b", "koch"], {})
    roots = [LeRobotDataset.create("me/set", 10, {"action": vector}, *args, **named).root for args, named in options]
    assert roots == [tmp_path / "a", tmp_path / "b"]
    meta = LeRobotDatasetMetadata.create("me/set", 10, {"action": vector}, "koch", tmp_path / "meta")
    assert meta.robot_type == "koch" and meta.root == tmp_path / "meta"
