"""The messages between policy server and robot client: a prefix, a version, and one msgpack map of a known form.

Every message is one frame `b"LRPI" | version uint16 | msgpack map`. Arrays are maps of dtype, shape and raw
little-endian bytes. Nothing in a message names code: an object of another language, a pickle for example, is refused
by its first bytes. Every length is held against a limit before memory is taken for it, and what is decoded has exactly
the fields of its kind.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from typing import Any

import numpy as np

from lerobot.common.checks.finding import Finding
from lerobot.common.utils.import_utils import require_package

MAGIC, VERSION = b"LRPI", 2
PREFIX = struct.Struct("<4sH")
TO_SERVER, TO_CLIENT = 32 << 20, 4 << 20  # bytes of a message: a raw picture history, or a chunk
LONGEST_TEXT, MOST_ITEMS = 8192, 128
DTYPES = {"u1": np.dtype("uint8"), "f4": np.dtype("<f4"), "i8": np.dtype("<i8")}
NAMES = {dtype: name for name, dtype in DTYPES.items()}

Check = Callable[[Any, str], Any]


class WireError(ValueError):
    """A message that is not of this protocol; nothing of it was used."""


class VersionError(WireError):
    """The other side speaks another version of the protocol."""


# --- what a field may hold ----------------------------------------------------------------------------------------


def text(longest: int = 256) -> Check:
    """A string of at most that many characters."""

    def check(value: Any, where: str) -> str:
        if type(value) is not str or len(value) > longest:
            raise WireError(f"{where}: expected a text of at most {longest} characters.")
        return value

    return check


def line(longest: int = 256) -> Check:
    """A text that is shown: what a terminal takes for a command, or a log for the end of a line, becomes a space."""
    inner = text(longest)

    def check(value: Any, where: str) -> str:
        return "".join(letter if letter.isprintable() else " " for letter in inner(value, where))

    return check


def integer(least: int = 0, most: int = 2**62) -> Check:
    """A whole number within bounds."""

    def check(value: Any, where: str) -> int:
        if type(value) is not int or not least <= value <= most:
            raise WireError(f"{where}: expected a whole number from {least} to {most}.")
        return value

    return check


def number(value: Any, where: str) -> float:
    """A finite number."""
    if type(value) not in (int, float) or not math.isfinite(value):
        raise WireError(f"{where}: expected a finite number.")
    return float(value)


def duration(value: Any, where: str) -> float:
    """Milliseconds, at most a day."""
    if not 0 <= number(value, where) <= 86_400_000:
        raise WireError(f"{where}: expected milliseconds, got {value}.")
    return float(value)


def binary(value: Any, where: str) -> bytes:
    """Bytes."""
    if type(value) is not bytes:
        raise WireError(f"{where}: expected bytes.")
    return value


def flag(value: Any, where: str) -> bool:
    """True or false."""
    if type(value) is not bool:
        raise WireError(f"{where}: expected true or false.")
    return value


def optional(inner: Check) -> Check:
    """None, or what `inner` takes."""
    return lambda value, where: None if value is None else inner(value, where)


def list_of(inner: Check, most: int = MOST_ITEMS) -> Check:
    """A list of at most that many items."""

    def check(value: Any, where: str) -> list:
        if type(value) is not list or len(value) > most:
            raise WireError(f"{where}: expected a list of at most {most}.")
        return [inner(item, f"{where}[{index}]") for index, item in enumerate(value)]

    return check


def map_of(inner: Check, most: int = MOST_ITEMS) -> Check:
    """A map from names to what `inner` takes."""
    name = text()

    def check(value: Any, where: str) -> dict:
        if type(value) is not dict or len(value) > most:
            raise WireError(f"{where}: expected a map of at most {most} names.")
        return {name(key, f"{where} name"): inner(item, f"{where}.{key}") for key, item in value.items()}

    return check


def record(fields: dict[str, Check]) -> Check:
    """A map with exactly these fields."""

    def check(value: Any, where: str) -> dict:
        if type(value) is not dict or value.keys() != fields.keys():
            raise WireError(f"{where}: expected exactly the fields {', '.join(fields)}.")
        return {key: inner(value[key], f"{where}.{key}") for key, inner in fields.items()}

    return check


SHAPE = list_of(integer(1, 65_536), 5)
_ARRAY = record({"dtype": text(2), "shape": SHAPE, "data": binary})
_JPEG = record({"jpeg": binary, "shape": SHAPE})


def array(value: Any, where: str) -> np.ndarray:
    """An array of a listed dtype whose bytes are as many as its shape says; floats are finite."""
    fields = _ARRAY(value, where)
    dtype, shape = DTYPES.get(fields["dtype"]), fields["shape"]
    if dtype is None:
        raise WireError(f"{where}: arrays are {', '.join(map(str, DTYPES.values()))}.")
    if math.prod(shape) * dtype.itemsize != len(fields["data"]):
        raise WireError(f"{where}: {len(fields['data'])} bytes are no {dtype} array of shape {tuple(shape)}.")
    values = np.frombuffer(fields["data"], dtype).reshape(shape)
    if dtype.kind == "f" and not np.isfinite(values).all():
        raise WireError(f"{where}: holds NaN or infinity.")
    return values


def picture_or_array(value: Any, where: str) -> Any:
    """An array, or a JPEG that is decoded later (`pictures.decode`)."""
    return _JPEG(value, where) if type(value) is dict and "jpeg" in value else array(value, where)


def picture_shape(value: Any, where: str) -> list[int]:
    """Height, width and three channels."""
    shape = SHAPE(value, where)
    if len(shape) != 3 or shape[2] != 3:
        raise WireError(f"{where}: expected height, width, 3; got {shape}.")
    return shape


def robot(value: Any, where: str) -> dict:
    """What a robot says about itself, with as many bounds as joints."""
    fields = _ROBOT(value, where)
    if not len(fields["low"]) == len(fields["high"]) == len(fields["joints"]) > 0:
        raise WireError(f"{where}: {len(fields['joints'])} joints with {len(fields['low'])} lowest values.")
    return fields


FINDING = record({"code": line(), "severity": line(16), "message": line(2048), "fix": line(1024)})
_ROBOT = record(
    {
        "type": text(),
        "cameras": map_of(picture_shape, 16),
        "joints": list_of(text()),
        "low": list_of(number),  # of each joint, in its own units
        "high": list_of(number),
        "fps": number,
        "units": text(),
    }
)
CONTINUED = {
    "inference_delay": integer(0, 65_536),
    "prev_chunk_left_over": array,  # (1, N, A) as the policy gave them
    "execution_horizon": optional(integer(1, 65_536)),
}
NOISE = {"seed": integer(), "first": integer()}  # `player.noise.TickNoise`
KINDS: dict[str, Check] = {
    "hello": record(
        {"client": line(), "arms": list_of(line(), 8), "checkpoint": line(), "task": text(1024), "robot": robot}
    ),
    "welcome": record(
        {
            "checkpoint": line(),
            "policy": line(),
            "inputs": map_of(SHAPE, 32),  # what the policy looks at, without history
            "history": integer(1, 64),  # observations per request
            "actions": integer(1, 1024),  # width of a chunk
            "steps": integer(1, 65_536),  # actions that the checkpoint was trained to play of each chunk
            "rtc": flag,  # whether it can continue a chunk that is being played
            "findings": list_of(FINDING, 64),
        }
    ),
    "ping": record({"sequence": integer()}),
    "pong": record({"sequence": integer()}),
    "observe": record(
        {
            "sequence": integer(),
            "task": text(1024),
            "observation": map_of(list_of(picture_or_array, 64), 32),
            "continues": optional(record(CONTINUED)),
            "noise": optional(record(NOISE)),
        }
    ),
    "chunk": record(
        {
            "sequence": integer(),
            "actions": array,  # (T, A) in the robot's units
            "planned": optional(array),  # (1, T, A) as the policy gave them, where it can continue a chunk
            "milliseconds": map_of(duration, 16),
        }
    ),
    "bye": record({}),
    "refused": record({"sequence": integer(), "code": line(), "message": line(4096), "findings": list_of(FINDING, 64)}),
}


def findings_to_wire(findings: list[Finding]) -> list[dict]:
    """Findings as the field of a message; evidence and place stay behind."""
    return [
        {"code": f.code[:256], "severity": f.severity, "message": f.message[:2048], "fix": f.fix[:1024]}
        for f in findings[:64]
    ]


def findings_from_wire(fields: list[dict]) -> list[Finding]:
    """The inverse; WireError for an unknown severity."""
    try:
        return [Finding(**field) for field in fields]
    except ValueError as e:
        raise WireError(str(e)) from None


# --- messages to bytes and back -----------------------------------------------------------------------------------


def encode(kind: str, **fields: Any) -> bytes:
    """One message."""
    return PREFIX.pack(MAGIC, VERSION) + _msgpack().packb({"kind": kind, **fields}, default=_plain)


def _msgpack():
    require_package("msgpack", "remote")
    import msgpack

    return msgpack


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        kept = np.ascontiguousarray(value)
        dtype = kept.dtype.newbyteorder("<") if kept.dtype.itemsize > 1 else kept.dtype
        if dtype not in NAMES:
            raise WireError(f"Arrays of {value.dtype} are not sent; expected {', '.join(map(str, NAMES))}.")
        return {"dtype": NAMES[dtype], "shape": list(kept.shape), "data": kept.astype(dtype, copy=False).tobytes()}
    if isinstance(value, np.generic):
        return value.item()
    raise WireError(f"{type(value).__name__} is not sent.")


def decode(data: bytes, most: int = TO_SERVER) -> tuple[str, dict[str, Any]]:
    """(kind, fields) of one message; WireError for anything else."""
    if len(data) > most:
        raise WireError(f"{len(data)} bytes; at most {most} are taken.")
    if len(data) < PREFIX.size or data[:4] != MAGIC:
        raise WireError("This is no message of a policy server or robot client. Pickles and other objects are refused.")
    _, version = PREFIX.unpack_from(data)
    if version != VERSION:
        raise VersionError(f"The other side speaks version {version} of the protocol, this one {VERSION}: update both.")
    msgpack = _msgpack()
    try:
        message = msgpack.unpackb(
            memoryview(data)[PREFIX.size :],
            strict_map_key=True,
            ext_hook=_no_extensions,
            max_str_len=LONGEST_TEXT,
            max_bin_len=most,
            max_array_len=MOST_ITEMS,
            max_map_len=MOST_ITEMS,
            max_ext_len=0,
        )
    except (ValueError, TypeError, RecursionError, msgpack.UnpackException) as e:
        raise WireError(f"Not a message: {e or type(e).__name__}.") from None
    if type(message) is not dict or type(message.get("kind")) is not str or message["kind"] not in KINDS:
        raise WireError("Not a message of a known kind.")
    kind = message.pop("kind")
    return kind, KINDS[kind](message, kind)


def _no_extensions(code: int, _data: bytes) -> Any:
    raise WireError(f"extension type {code}")
