"""Many video files: one seen once is read again without opening it as a container, by decoders that files share."""

import os
from fractions import Fraction

import av
import numpy as np
import pytest

from lerobot.common.datasets import video_utils
from lerobot.common.datasets.video_utils import VideoDecodeError, VideoReader, decode_video_frames, iter_video_frames
from tests.datasets.conftest import picture
from tests.datasets.test_video import STRUCTURES

FRAMES, FPS = 24, 30


def write_video(path, codec="h264", options=None, first_picture=0, size=(64, 96), first_pts=0, container_options=None):
    with av.open(str(path), "w", options=container_options or {}) as container:
        stream = container.add_stream(codec, rate=FPS, options=options or {"g": "2"})
        stream.height, stream.width, stream.pix_fmt = *size, "yuv420p"
        for i in range(FRAMES):
            frame = av.VideoFrame.from_ndarray(
                picture(0, first_picture + i)[: size[0], : size[1]].copy(), format="rgb24"
            )
            frame.pts, frame.time_base = first_pts + i, Fraction(1, FPS)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


@pytest.fixture
def opened(monkeypatch):
    """Names of the files opened as containers; the process begins without decoders, and keeps three."""
    names, av_open = [], av.open
    monkeypatch.setenv(video_utils.DECODER_CACHE_ENV, "3")
    monkeypatch.setattr(av, "open", lambda path, *args, **kwargs: names.append(path) or av_open(path, *args, **kwargs))
    video_utils._readers.clear()
    yield names
    video_utils._readers.clear()


def read(path, number):
    frame = decode_video_frames(path, [number / FPS], 1e-4, return_uint8=True)[0]
    return frame.permute(1, 2, 0).numpy()


@pytest.mark.parametrize("structure", STRUCTURES)
def test_more_files_than_decoders_are_each_opened_once_and_stay_exact(tmp_path, opened, structure):
    paths = [tmp_path / f"{i}.mp4" for i in range(6)]
    for i, path in enumerate(paths):  # two picture sizes: two kinds of decoder
        write_video(path, *STRUCTURES[structure], first_picture=3 * i, size=(64, 96) if i % 2 else (64, 64))
    expected = {path: list(iter_video_frames(path)) for path in paths}
    opened.clear()
    random = np.random.default_rng(0)
    for _ in range(12):
        for i in random.permutation(len(paths)):
            number = int(random.integers(FRAMES))
            np.testing.assert_array_equal(read(paths[i], number), expected[paths[i]][number])
            np.testing.assert_array_equal(
                read(paths[i], (number + 1) % FRAMES), expected[paths[i]][(number + 1) % FRAMES]
            )
    # A kind of which no decoder was left is opened again now and then; the files are not.
    assert len(opened) < 12 and len(video_utils._readers._open) == 3 and len(video_utils._readers._readers) == 6


def test_files_of_one_kind_are_opened_once(tmp_path, opened):
    paths = [tmp_path / f"{i}.mp4" for i in range(8)]
    for path in paths:
        write_video(path)
    opened.clear()
    for number in range(5):
        for path in paths:
            read(path, number)
    assert sorted(opened) == sorted(map(str, paths))


def test_a_replaced_file_is_noticed(tmp_path, opened):
    paths = [tmp_path / f"{i}.mp4" for i in range(5)]
    for path in paths:
        write_video(path)
        read(path, 0)
    write_video(tmp_path / "new.mp4", first_picture=9)
    expected = list(iter_video_frames(tmp_path / "new.mp4"))
    old = VideoReader(paths[0])
    os.replace(tmp_path / "new.mp4", paths[0])
    np.testing.assert_array_equal(read(paths[0], 5), expected[5])
    with pytest.raises(VideoDecodeError, match="0.mp4.*replaced"):
        old.frames([5])
    paths[0].unlink()
    with pytest.raises(VideoDecodeError, match="0.mp4' does not exist"):
        read(paths[0], 5)


def test_the_memory_for_packet_lists_is_bounded(tmp_path, opened, monkeypatch):
    monkeypatch.setattr(video_utils, "INDEX_BYTES", 12_000)
    for i in range(5):
        write_video(tmp_path / f"{i}.mp4")
        read(tmp_path / f"{i}.mp4", 0)
    kept = video_utils._readers._readers
    assert list(kept) == [str(tmp_path / f"{i}.mp4") for i in (3, 4)]
    assert video_utils._readers._bytes == sum(reader.nbytes for reader in kept.values()) <= 12_000
    assert list(video_utils._readers._open) == list(kept)


def test_what_an_index_cannot_serve_is_left_to_the_container(tmp_path):
    write_video(tmp_path / "block.mkv")
    # Four frames before zero: the edit list discards them, which only the container tells the decoder.
    edit = {"first_pts": -4, "container_options": {"avoid_negative_ts": "disabled"}}
    write_video(tmp_path / "edited.mp4", options={"g": "10"}, **edit)
    write_video(tmp_path / "mpeg4.mp4", "mpeg4")
    for name, frames in (("block.mkv", FRAMES), ("edited.mp4", FRAMES - 4), ("mpeg4.mp4", FRAMES)):
        reader, expected = VideoReader(tmp_path / name), list(iter_video_frames(tmp_path / name))
        assert reader.kind is None and len(reader.times) == len(expected) == frames, name
        for number in (7, 3, 15):
            np.testing.assert_array_equal(reader.frames([number])[0], expected[number], err_msg=name)


def test_parameters_that_change_within_a_file_keep_it_with_its_own_decoder(tmp_path):
    write_video(tmp_path / "v.mp4")
    with av.open(str(tmp_path / "v.mp4")) as source, av.open(str(tmp_path / "changed.mp4"), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for i, packet in enumerate(packet for packet in source.demux(video=0) if packet.size):
            data = bytes(packet)
            if i == 6:  # a picture parameter set (type 8) that the stream's header does not have
                data = b"\x00\x00\x00\x03\x68\xee\x3c" + data
            changed = av.Packet(data)
            changed.pts, changed.dts, changed.time_base = packet.pts, packet.dts, packet.time_base
            changed.is_keyframe, changed.stream = packet.is_keyframe, stream
            target.mux(changed)
    assert VideoReader(tmp_path / "v.mp4").kind is not None
    assert VideoReader(tmp_path / "changed.mp4").kind is None


def test_a_fragmented_file_is_read_by_its_index(tmp_path):
    write_video(tmp_path / "v.mp4", container_options={"movflags": "frag_keyframe+empty_moov"})
    reader, expected = VideoReader(tmp_path / "v.mp4"), list(iter_video_frames(tmp_path / "v.mp4"))
    assert reader.kind is not None
    for number in (20, 3, 4, 11):
        np.testing.assert_array_equal(reader.frames([number])[0], expected[number])
