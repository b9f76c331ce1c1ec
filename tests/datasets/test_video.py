"""Decoding by timestamp: the frames of a sequential decode, whatever the structure of the file."""

import contextlib
import itertools
import os
import subprocess
import sys
from fractions import Fraction

import av
import numpy as np
import pytest
import torch

from lerobot.common.datasets.image_writer import write_image
from lerobot.common.datasets.video_utils import (
    FrameTimestampError,
    VideoDecodeError,
    VideoEncoder,
    VideoReader,
    check_video_backend,
    decode_video_frames,
    encode_video_frames,
    get_video_info,
    iter_video_frames,
)
from tests.datasets.conftest import features, picture, record

FRAMES, FPS = 41, 30


def write_video(path, codec: str, options: dict, fps=FPS, first_pts: int = 0) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=Fraction(fps).limit_denominator(65535), options=options)
        stream.height, stream.width, stream.pix_fmt = 64, 96, "yuv420p"
        for i in range(FRAMES):
            frame = av.VideoFrame.from_ndarray(picture(0, i), format="rgb24")
            frame.pts = first_pts + i
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


STRUCTURES = {
    "every second frame a keyframe": ("h264", {"g": "2"}),
    "one keyframe": ("h264", {"g": "1000"}),
    "B-frames": ("h264", {"g": "12", "bf": "3"}),
    "B-frame pyramid, open groups": (
        "h264",
        {"g": "10", "bf": "4", "x264-params": "open-gop=1:b-pyramid=normal"},
    ),
    "only keyframes": ("h264", {"g": "1"}),
    "hevc with open groups": ("hevc", {"g": "8", "x265-params": "log-level=error:open-gop=1:bframes=3"}),
    "av1": ("libsvtav1", {"g": "8", "preset": "12"}),
}


@pytest.mark.parametrize("container", ["mp4", "mkv"])
@pytest.mark.parametrize("structure", STRUCTURES)
def test_random_access_gives_the_frames_of_a_sequential_decode(tmp_path, structure, container):
    path = tmp_path / f"video.{container}"
    write_video(path, *STRUCTURES[structure])
    expected = list(iter_video_frames(path))
    assert len(expected) == FRAMES
    order = np.random.default_rng(0).permutation(FRAMES).tolist()
    for number in [*order, 0, 0, FRAMES - 1, FRAMES - 1, 5, 6, 7]:
        frame = decode_video_frames(path, [number / FPS], 1e-3, return_uint8=True)[0]  # mkv has milliseconds
        np.testing.assert_array_equal(frame.permute(1, 2, 0), expected[number], err_msg=str(number))


@pytest.mark.parametrize("container", ["mp4", "mkv"])
@pytest.mark.parametrize("structure", ["every second frame a keyframe", "B-frames", "only keyframes"])
def test_no_packet_before_the_keyframe_is_decoded(tmp_path, structure, container):
    path = tmp_path / f"video.{container}"
    write_video(path, *STRUCTURES[structure])
    with av.open(str(path)) as file:
        keyframes = sorted(packet.pts for packet in file.demux(video=0) if packet.is_keyframe)
    reader = VideoReader(path)
    assert [next(reader._packets_from(key)).pts for key in range(len(keyframes))] == keyframes


def test_cameras_decoded_side_by_side_give_the_same_pictures(tmp_path):
    dataset = record(tmp_path / "set", (5, 8), feature_set=features(video=2))
    rows, threads = [9, 0, 3, 12, 3], torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = dataset.__getitems__(rows).batch
        torch.set_num_threads(2)
        together = dataset.__getitems__(rows).batch
    finally:
        torch.set_num_threads(threads)
    for key in dataset.meta.video_keys:
        assert torch.equal(alone[key], together[key]) and together[key].shape == (5, 3, 64, 96)


def test_a_window_may_repeat_and_jump(tmp_path):
    path = tmp_path / "video.mp4"
    write_video(path, "h264", {"g": "2"})
    expected = np.stack(list(iter_video_frames(path)))
    numbers = [7, 7, 3, 40, 0, 8]
    frames = decode_video_frames(path, [n / FPS for n in numbers], 1e-4)
    assert frames.dtype == torch.float32 and frames.shape == (6, 3, 64, 96)
    np.testing.assert_array_equal((frames * 255).round().permute(0, 2, 3, 1), expected[numbers])


@pytest.mark.parametrize("fps", [10, 15, 25, 29.97, 30, 50, 60])
def test_frame_times_are_multiples_of_the_frame_period(tmp_path, fps):
    encoder = VideoEncoder(tmp_path / "video.mp4", fps)
    for i in range(FRAMES):
        encoder.write(picture(0, i))
    encoder.close()
    reader = VideoReader(tmp_path / "video.mp4")
    np.testing.assert_allclose(reader.times, np.arange(FRAMES) / fps, atol=2e-5)
    assert reader.nearest(np.arange(FRAMES, dtype=np.float32) / np.float32(fps), 1e-4).tolist() == [*range(FRAMES)]


def test_the_nearest_frame_must_be_nearer_than_the_tolerance(tmp_path):
    path = tmp_path / "video.mp4"
    write_video(path, "h264", {"g": "2"})
    reader = VideoReader(path)
    assert reader.nearest([3 / FPS + 0.009, 4 / FPS - 0.009], 0.01).tolist() == [3, 4]
    for wrong in (3 / FPS + 0.011, -0.011, FRAMES / FPS):
        with pytest.raises(FrameTimestampError, match="video.mp4"):
            reader.nearest([wrong], 0.01)


def test_a_late_first_frame_is_not_taken_for_time_zero(tmp_path):
    path = tmp_path / "late.mkv"
    write_video(path, "h264", {"g": "2"}, first_pts=3)
    with pytest.raises(FrameTimestampError):
        decode_video_frames(path, [0.0], 1e-4)
    expected = next(iter_video_frames(path))
    frame = decode_video_frames(path, [3 / FPS], 1e-3, return_uint8=True)[0]
    np.testing.assert_array_equal(frame.permute(1, 2, 0), expected)


def test_a_video_with_sound_decodes_its_pictures(tmp_path):
    path = tmp_path / "sound.mp4"
    with av.open(str(path), "w") as container:
        sound = container.add_stream("aac", rate=16000)
        video = container.add_stream("h264", rate=FPS, options={"g": "2"})
        video.height, video.width, video.pix_fmt = 64, 96, "yuv420p"
        for i in range(8):
            container.mux(video.encode(av.VideoFrame.from_ndarray(picture(0, i), format="rgb24")))
            samples = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            samples.sample_rate = 16000
            container.mux(sound.encode(samples))
        container.mux(video.encode())
        container.mux(sound.encode())
    info = get_video_info(path)
    assert info["has_audio"] and info["audio.codec"] == "aac" and info["audio.sample_rate"] == 16000
    assert decode_video_frames(path, [5 / FPS], 1e-4).shape == (1, 3, 64, 96)


def test_the_number_of_open_decoders_is_bounded(tmp_path, monkeypatch):
    from lerobot.common.datasets import video_utils

    monkeypatch.setenv("LEROBOT_VIDEO_DECODER_CACHE_SIZE", "2")
    for i in range(4):
        write_video(tmp_path / f"{i}.mp4", "h264", {"g": "2"})
        decode_video_frames(tmp_path / f"{i}.mp4", [0.0], 1e-4)
        decode_video_frames(tmp_path / "0.mp4", [1 / FPS], 1e-4)
    assert list(video_utils._readers._open) == [str(tmp_path / name) for name in ("3.mp4", "0.mp4")]


@pytest.mark.parametrize("name", ["pyav", "torchcodec", "video_reader", None])
def test_every_backend_name_decodes(name):
    assert check_video_backend(name) == "pyav"


def test_unknown_names_are_refused(tmp_path):
    with pytest.raises(ValueError, match="opencv"):
        check_video_backend("opencv")
    with pytest.raises(ValueError, match="vp9"):
        VideoEncoder(tmp_path / "v.mp4", 30, vcodec="vp9")
    with pytest.raises(VideoDecodeError, match="nothing.mp4' does not exist"):
        decode_video_frames(tmp_path / "nothing.mp4", [0.0], 1e-4)


def test_encoding_a_folder_of_pictures(tmp_path):
    for i in range(5):
        write_image(picture(0, i), tmp_path / "images" / f"frame_{i:06d}.png")
    encode_video_frames(tmp_path / "images", tmp_path / "videos" / "v.mp4", 30, vcodec="h264")
    frames = list(iter_video_frames(tmp_path / "videos" / "v.mp4"))
    assert len(frames) == 5
    assert np.abs(frames[4].astype(int) - picture(0, 4)).mean() < 8
    with pytest.raises(FileExistsError, match="overwrite=True"):
        encode_video_frames(tmp_path / "images", tmp_path / "videos" / "v.mp4", 30)
    with pytest.raises(FileNotFoundError, match="No frame_"):
        encode_video_frames(tmp_path / "videos", tmp_path / "w.mp4", 30)


def test_a_broken_or_abandoned_video_holds_nobody_up(tmp_path):
    """A codec's own threads that log while Python closes the codec would wait for each other."""
    path = tmp_path / "v.mp4"
    with VideoEncoder(path, 30, g=30) as encoder:
        for seed in range(20):
            encoder.write(np.random.default_rng(seed).integers(0, 255, (96, 128, 3), dtype=np.uint8))
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 3 : len(damaged) // 2 : 7] = bytes(len(damaged[len(damaged) // 3 : len(damaged) // 2 : 7]))
    (tmp_path / "damaged.mp4").write_bytes(damaged)
    assert av.logging.get_level() is None  # no call from a codec's thread into the interpreter
    for count in range(40):
        for name in ("v.mp4", "damaged.mp4"):
            frames = iter_video_frames(tmp_path / name)
            with contextlib.suppress(VideoDecodeError):
                list(itertools.islice(frames, count % 7))
            frames.close()


LEAVE_AN_ENCODER_AND_FORK = """
import gc, io, os, signal, time
import av, numpy as np
import lerobot.common.datasets.video_utils

class Holder:
    pass

def leave_an_encoder():
    holder = Holder()
    holder.itself, holder.container = holder, av.open(io.BytesIO(), "w", format="mp4")
    stream = holder.container.add_stream("libx264", rate=30)
    stream.width, stream.height, stream.pix_fmt, stream.codec_context.thread_count = 64, 48, "yuv420p", 4
    for _ in range(20):
        frame = av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), format="rgb24")
        holder.container.mux(stream.encode(frame))

gc.disable()
leave_an_encoder()
child = os.fork()
if child == 0:
    gc.collect()
    os._exit(0)
deadline = time.monotonic() + 60
while os.waitpid(child, os.WNOHANG) == (0, 0):
    if time.monotonic() > deadline:
        os.kill(child, signal.SIGKILL)
        raise SystemExit("the child waits for threads that it does not have")
    time.sleep(0.01)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_worker_does_not_collect_its_parents_encoders():
    done = subprocess.run(
        [sys.executable, "-c", LEAVE_AN_ENCODER_AND_FORK], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "codec, options", [("h264", {"g": "2"}), ("h264", {"g": "12", "bf": "3"}), ("hevc", {"g": "30"})]
)
def test_many_frames_at_once_are_those_of_a_sequential_decode(tmp_path, codec, options):
    write_video(tmp_path / "v.mp4", codec, options)
    expected = list(iter_video_frames(tmp_path / "v.mp4"))
    reader, random = VideoReader(tmp_path / "v.mp4"), np.random.default_rng(0)
    for size in (1, 2, 5, 20, 60):
        numbers = random.integers(0, FRAMES, size).tolist()
        np.testing.assert_array_equal(reader.frames(numbers), np.stack([expected[n] for n in numbers]))
    np.testing.assert_array_equal(reader.frames(range(7, 15)), np.stack(expected[7:15]))
