"""The ring buffer of frames on disk."""

import numpy as np
import pytest
import torch
from lerobot.datasets.online_buffer import OnlineBuffer, compute_sampler_weights

SPEC = {"x": {"shape": (2,), "dtype": np.dtype("float32")}}


def frames(episodes: int, length: int, start: float = 0) -> dict[str, np.ndarray]:
    count = episodes * length
    number = np.tile(np.arange(length), episodes)
    return {
        "index": np.arange(count),
        "episode_index": np.repeat(np.arange(episodes), length),
        "frame_index": number,
        "timestamp": number / 10,
        "x": np.repeat((start + np.arange(count, dtype=np.float32))[:, None], 2, axis=1),
    }


def test_the_oldest_frames_give_way_and_the_folder_keeps_the_rest(tmp_path):
    buffer = OnlineBuffer(tmp_path, SPEC, buffer_capacity=6, fps=10)
    buffer.add_data(frames(2, 2))
    assert len(buffer) == 4 and buffer.num_episodes == 2
    buffer.add_data(frames(2, 2, start=100))
    assert len(buffer) == 6 and buffer.get_data_by_key("index").tolist() == [6, 7, 2, 3, 4, 5]
    assert buffer[0]["x"].tolist() == [102, 102] and buffer[0]["episode_index"] == 3 and buffer[-1]["index"] == 5
    again = OnlineBuffer(tmp_path, SPEC, buffer_capacity=6)
    assert len(again) == 6 and torch.equal(again[3]["x"], buffer[3]["x"])
    with pytest.raises(IndexError):
        buffer[6]


def test_windows_end_at_the_episode(tmp_path):
    buffer = OnlineBuffer(tmp_path, SPEC, 8, fps=10, delta_timestamps={"x": [-0.1, 0, 0.1]})
    buffer.add_data(frames(2, 3))
    item = buffer[3]
    assert item["x"][:, 0].tolist() == [3, 3, 4] and item["x_is_pad"].tolist() == [True, False, False]


@pytest.mark.parametrize("key", ["index", "_x"])
def test_keys_of_the_buffer_itself_are_refused(tmp_path, key):
    with pytest.raises(ValueError, match=key):
        OnlineBuffer(tmp_path, {key: SPEC["x"]}, 4)


def test_wrong_columns_and_another_capacity_are_refused(tmp_path):
    buffer = OnlineBuffer(tmp_path, SPEC, 4)
    with pytest.raises(ValueError, match="episode_index"):
        buffer.add_data({"x": np.zeros((1, 2))})
    with pytest.raises(ValueError, match="buffer_capacity"):
        OnlineBuffer(tmp_path, SPEC, 5)


class Offline:
    """Two episodes of three frames."""

    episode_data_index = {"from": torch.tensor([0, 3]), "to": torch.tensor([3, 6])}

    def __len__(self):
        return 6


def test_sampler_weights_share_out_the_ratio(tmp_path):
    buffer = OnlineBuffer(tmp_path, SPEC, 8)
    buffer.add_data(frames(2, 2))
    weights = compute_sampler_weights(Offline(), 1, buffer, 0.3, 1)
    expected = [0.175, 0.175, 0, 0.175, 0.175, 0, 0.15, 0, 0.15, 0]
    torch.testing.assert_close(weights, torch.tensor(expected))
    torch.testing.assert_close(compute_sampler_weights(Offline()), torch.full((6,), 1 / 6))
    with pytest.raises(ValueError, match="together"):
        compute_sampler_weights(Offline(), online_dataset=buffer)
