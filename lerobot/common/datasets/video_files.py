"""Video files without decoding: joining them and taking a span out of one, packet by packet."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av

from lerobot.common.datasets.video_utils import VideoDecodeError


class IncompatibleVideosError(ValueError):
    """Videos cannot stand in one file: codec, size, pixel format or encoder settings differ."""


class PacketWriter:
    """Copies packets into one mp4; `position` is where the next piece starts, in seconds.

    IncompatibleVideosError if a piece was encoded in another way than the first one.
    """

    def __init__(self, path: Path):
        self.path, self.position = Path(path), Fraction(0)
        self._output, self._stream, self._kind, self._last_dts = None, None, None, None

    def append(self, path: Path, start: float = 0.0, end: float | None = None) -> Fraction:
        """Copy the frames of [start, end) seconds, return where they start; VideoDecodeError if not at keyframes."""
        try:
            with av.open(str(path)) as source:
                stream = source.streams.video[0]
                self._open(stream, path)
                begin, packets = self.position, self._packets(source, stream, start, end)
                if not packets or not packets[0].is_keyframe:
                    raise VideoDecodeError(f"Video '{path}' has no keyframe at {start} s.")
                self._copy(packets, begin, path)
        except (av.FFmpegError, IndexError) as e:
            raise VideoDecodeError(f"Video '{path}' cannot be read: {e}.") from e
        return begin

    def _open(self, stream, path: Path) -> None:
        context = stream.codec_context
        kind = (context.name, stream.width, stream.height, context.pix_fmt, bytes(context.extradata or b""))
        if self._output is None:
            self._output = av.open(str(self.path), "w", format="mp4")
            self._stream = self._output.add_stream_from_template(stream)
            self._stream.time_base = stream.time_base
            self._kind = kind
        elif kind != self._kind:
            raise IncompatibleVideosError(f"'{path}' is encoded in another way than the frames before.")

    def _packets(self, source, stream, start: float, end: float | None) -> list:
        """Packets of the span in decoding order; a margin below a frame absorbs the rounding of the bounds."""
        margin = Fraction(1, 4) / (stream.average_rate or 30)
        first = round((Fraction(start) - margin) / stream.time_base)
        last = None if end is None else round((Fraction(end) - margin) / stream.time_base)
        if start > 0:
            source.seek(max(0, first), stream=stream, backward=True)
        chosen = []
        for packet in source.demux(stream):
            if packet.pts is None or packet.pts < first:
                continue
            if last is not None and packet.pts >= last:
                if packet.is_keyframe:
                    break
                if stream.codec_context.has_b_frames:
                    raise VideoDecodeError(f"Video '{stream.container.name}': {end} s is not at a keyframe.")
                continue
            chosen.append(packet)
        return chosen

    def _copy(self, packets: list, begin: Fraction, path: Path) -> None:
        base = packets[0].time_base
        origin = min(packet.pts for packet in packets)
        shift = round(begin / base) - origin
        end = max(packet.pts + (packet.duration or 0) for packet in packets)
        for packet in packets:
            dts = (packet.pts if packet.dts is None else packet.dts) + shift
            if self._last_dts is not None and dts * base <= self._last_dts:
                raise IncompatibleVideosError(f"'{path}' reorders its frames in another way than those before.")
            packet.pts, packet.dts, self._last_dts = packet.pts + shift, dts, dts * base
            packet.stream = self._stream
            self._output.mux(packet)
        self.position = (end + shift) * base

    def close(self) -> None:
        """Write the index of the file."""
        if self._output is not None:
            self._output.close()
            self._output = None

    def __enter__(self) -> PacketWriter:
        return self

    def __exit__(self, *error) -> None:
        self.close()


def concatenate_video_files(
    input_video_paths: Sequence[Path], output_video_path: Path, overwrite: bool = True
) -> list[float]:
    """Join videos without encoding; returns the second at which each one starts.

    FileExistsError if the output exists and `overwrite` is off.
    """
    if not overwrite and Path(output_video_path).exists():
        raise FileExistsError(f"Video '{output_video_path}' exists; give overwrite=True to replace it.")
    with PacketWriter(output_video_path) as writer:
        return [float(writer.append(one)) for one in input_video_paths]


def get_video_duration_in_s(video_path: Path) -> float:
    """Seconds from the first frame to the end of the last one."""
    with av.open(str(video_path)) as source:
        stream = source.streams.video[0]
        if stream.duration is None:
            return float(source.duration / av.time_base)
        return float(stream.duration * stream.time_base)
