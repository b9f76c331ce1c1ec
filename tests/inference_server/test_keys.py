"""Tokens, the keys made of them, and where a server may listen without one."""

from __future__ import annotations

import pytest

pytest.importorskip("zmq")

from lerobot.common.inference_server.keys import derive_keys, is_loopback, read_token, require_token

TOKEN = "0123456789abcdef"


def test_a_token_gives_the_same_keys_on_both_sides_and_another_gives_others():
    one, same, other = derive_keys(TOKEN), derive_keys(TOKEN), derive_keys(TOKEN + "x")
    assert one == same and len({*vars(one).values(), *vars(other).values()}) == 8


def test_a_token_is_read_from_a_file_that_others_should_not_read(tmp_path, caplog):
    path = tmp_path / "token.txt"
    with pytest.raises(FileNotFoundError, match="secrets"):
        read_token(path)
    path.write_text("short\n")
    with pytest.raises(ValueError, match="5 characters, expected at least 16"):
        read_token(path)
    path.write_text(TOKEN + "\n")
    path.chmod(0o644)
    assert read_token(path) == TOKEN and "chmod 600" in caplog.text
    assert read_token(None) is None


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.9.9.9", "::1", "[::1]"])
def test_this_machine_alone_needs_no_token(host):
    assert is_loopback(host)
    require_token(host, None, "--host")


@pytest.mark.parametrize("host", ["0.0.0.0", "*", "::", "192.168.1.5", "robot.local", "localhost.example.com", ""])
def test_every_other_address_needs_one(host):
    with pytest.raises(ValueError, match="token_file"):
        require_token(host, None, "--host")
    require_token(host, TOKEN, "--host")
