"""Who may connect: the shared token, the CURVE keys made of it, and where a server may listen without one.

Both sides derive both key pairs from the token (scrypt), so that a token alone gives encryption and proves each side to
the other; it never crosses the network. CURVE is ZeroMQ's CurveZMQ (RFC 26): every message is encrypted, authenticated
and cannot be sent a second time.
"""

from __future__ import annotations

import hashlib
import ipaddress
import logging
from dataclasses import dataclass
from pathlib import Path

from lerobot.common.inference_server.zeromq import import_zmq

SHORTEST = 16  # characters of a token
MAKE_ONE = "python -c 'import secrets; print(secrets.token_urlsafe(32))' > token.txt; chmod 600 token.txt"


@dataclass(frozen=True)
class Keys:
    """Public and secret keys of server and client, as Z85 text."""

    server_public: bytes
    server_secret: bytes
    client_public: bytes
    client_secret: bytes


def read_token(path: str | Path | None) -> str | None:
    """The token in a file, None without a file; ValueError for a short one."""
    if path is None:
        return None
    path = Path(path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"--token_file={path}: no such file. Make one: {MAKE_ONE}")
    token = path.read_text(encoding="utf-8").strip()
    if len(token) < SHORTEST:
        raise ValueError(f"'{path}' holds {len(token)} characters, expected at least {SHORTEST}. Make one: {MAKE_ONE}")
    if path.stat().st_mode & 0o077:
        logging.warning("Other users can read the token: chmod 600 '%s'.", path)
    return token


def derive_keys(token: str) -> Keys:
    """The key pairs of a token."""
    zmq = import_zmq()
    if not zmq.has("curve"):
        raise ImportError("This pyzmq was built without CURVE: pip install --force-reinstall pyzmq")
    parts: list[bytes] = []
    for side in (b"server", b"client"):
        seed = hashlib.scrypt(token.encode(), salt=b"lerobot policy server " + side, n=2**14, r=8, p=1, dklen=32)
        secret = zmq.utils.z85.encode(seed)
        parts += [zmq.curve_public(secret), secret]
    return Keys(*parts)


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def require_token(host: str, token: str | None, what: str) -> None:
    """ValueError for an address beyond this machine without a token."""
    if token is None and not is_loopback(host):
        raise ValueError(f"{what} {host} is not this machine alone: --token_file=FILE is needed. Make one: {MAKE_ONE}")
