"""Where the packets of a video file lie, so that later they are read without opening the file as a container again."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import av
import numpy as np

# Decoders that a flush empties, and the NAL units that hold parameters (h264, hevc). AV1 repeats them at each keyframe.
PARAMETER_UNITS = {"h264": {7, 8, 13, 15}, "hevc": {32, 33, 34}, "libdav1d": set()}
# What a decoder is told by a container. Files in which all of it is equal can take turns with one decoder.
KIND = """extradata width height pix_fmt codec_tag profile level has_b_frames color_range colorspace color_primaries
color_trc sample_aspect_ratio bits_per_coded_sample""".split()


def file_version(path: str | Path) -> tuple[int, int, int] | None:
    """What changes when a file is replaced; None if there is none."""
    try:
        return _version(os.stat(path))
    except FileNotFoundError:
        return None


def _version(stat: os.stat_result) -> tuple[int, int, int]:
    return stat.st_ino, stat.st_size, stat.st_mtime_ns


class PacketIndex:
    """The packets of a video stream in the order of decoding, listed by one pass over the container, not decoded.

    `pts` (N,) int64 presentation times in units of `time_base`; `keyframes` (K,) the packets that are keyframes, in the
    order of their pts, `key_dts` (K,) their decoding times; `shown` (N,) bool: not discarded by an edit list.

    `kind` is equal for files that one decoder may decode in turn, and None where packets cannot be read by `read`: they
    are not stored as they are decoded (mkv, Annex B), come with side data, are damaged, some are discarded (only the
    container can tell the decoder), or parameters change within the file.
    """

    def __init__(self, path: Path, version: tuple | None, container: av.container.InputContainer):
        stream = container.streams.video[0]
        self.path, self.version, self.time_base = path, version, stream.time_base
        context, rows = stream.codec_context, []
        direct = context.codec.name in PARAMETER_UNITS
        with open(path, "rb") as file:
            for packet in container.demux(stream):
                direct = direct and (not packet.size or _is_stored_plainly(packet, file, context))
                if packet.pts is not None:
                    dts = packet.pts if packet.dts is None else packet.dts
                    place = -1 if packet.pos is None else packet.pos
                    rows.append((packet.pts, dts, packet.is_keyframe, not packet.is_discard, place, packet.size))
        pts, dts, is_key, shown, position, size = np.array(rows, dtype=np.int64).reshape(-1, 6).T
        self.pts, self.shown = pts.copy(), shown.astype(bool)
        keyframes = np.flatnonzero(is_key)  # also discarded ones, which shown frames may need
        self.keyframes = keyframes[np.lexsort((dts[keyframes], pts[keyframes]))]
        self.key_dts = dts[self.keyframes]
        self.kind = None
        if direct:
            self._position, self._size = position.copy(), size.astype(np.int32)
            self.kind = (context.codec.name, self.time_base, *(getattr(context, name, None) for name in KIND))

    @property
    def nbytes(self) -> int:
        """About the memory that it holds."""
        return 4096 + sum(value.nbytes for value in vars(self).values() if isinstance(value, np.ndarray))

    def read(self, keyframe: int) -> Iterator[av.Packet]:
        """The packets from a keyframe (its number) on and the empty one of the end; EOFError if the file changed."""
        with open(self.path, "rb", buffering=0) as file:
            if _version(os.fstat(file.fileno())) != self.version:
                raise EOFError("the file was replaced while it was read")
            for number in range(self.keyframes[keyframe], len(self.pts)):
                file.seek(self._position[number])
                data = file.read(self._size[number])
                if len(data) != self._size[number]:
                    raise EOFError("the file is shorter than it was")
                packet = av.Packet(data)
                packet.pts, packet.time_base = int(self.pts[number]), self.time_base
                yield packet
        yield av.Packet()


def _is_stored_plainly(packet: av.Packet, file: BinaryIO, context: av.VideoCodecContext) -> bool:
    """Whether a packet is the bytes at its place in the file and nothing else, under the stream's parameters."""
    if packet.pts is None or packet.pos is None or packet.is_discard or packet.is_corrupt:
        return False
    if not hasattr(packet, "iter_sidedata") or any(True for _ in packet.iter_sidedata()):  # old PyAV cannot tell
        return False
    file.seek(packet.pos)
    data = bytes(packet)
    return file.read(len(data)) == data and _keeps_parameters(data, context)


def _keeps_parameters(data: bytes, context: av.VideoCodecContext) -> bool:
    """Whether the parameter sets within a packet, if any, are those of the stream; False for a form unknown here."""
    codec, extradata = context.codec.name, context.extradata or b""
    parameters = PARAMETER_UNITS[codec]
    if not parameters:
        return True
    if len(extradata) < 23 or extradata[0] != 1:  # not ISO/IEC 14496-15, which puts a length before each unit
        return False
    length_size, place = (extradata[4 if codec == "h264" else 21] & 3) + 1, 0
    while place + length_size < len(data):
        begin = place + length_size
        place = begin + int.from_bytes(data[place:begin], "big")
        kind = data[begin] & 31 if codec == "h264" else data[begin] >> 1 & 63
        if kind in parameters and data[begin:place] not in extradata:
            return False
    return place == len(data)
