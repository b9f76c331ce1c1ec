"""Atomic writes."""

import json
import resource

import pytest

from lerobot.common.utils.io_utils import append_text, atomic_path, flatten_dict, unflatten_dict, write_json


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    target = tmp_path / "a.json"
    write_json({"old": 1}, target)
    with pytest.raises(RuntimeError), atomic_path(target) as partial:
        partial.write_text("half")
        raise RuntimeError
    assert json.loads(target.read_text()) == {"old": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_a_failed_folder_is_removed(tmp_path):
    with pytest.raises(RuntimeError), atomic_path(tmp_path / "step") as partial:
        (partial / "sub").mkdir(parents=True)
        (partial / "sub" / "file").write_text("x")
        raise RuntimeError
    assert not list(tmp_path.iterdir())


def test_nested_dicts_flatten_and_back():
    nested = {"a": {"b": 1, "c": {"d": 2}}, "e": 3}
    assert flatten_dict(nested) == {"a/b": 1, "a/c/d": 2, "e": 3}
    assert unflatten_dict(flatten_dict(nested)) == nested


def test_a_folder_replaces_an_older_one(tmp_path):
    for text in ("old", "new"):
        with atomic_path(tmp_path / "step") as partial:
            partial.mkdir()
            (partial / text).write_text(text)
    assert [p.name for p in tmp_path.iterdir()] == ["step"]
    assert [p.name for p in (tmp_path / "step").iterdir()] == ["new"]


def test_appending_takes_all_of_a_text_or_nothing(tmp_path):
    file = tmp_path / "lines"
    append_text("first\n", file)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, limits[1]))  # as a disk that has room for 4 bytes
    try:
        with pytest.raises(OSError, match="large"):
            append_text("second\n", file)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert file.read_text() == "first\n"
    append_text("second\n", file)
    assert file.read_text() == "first\nsecond\n"
