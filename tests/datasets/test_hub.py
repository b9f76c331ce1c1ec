"""What is asked of the hub, and when nothing is."""

import socket

import pytest
from packaging.version import Version

from lerobot.common.datasets import hub_download
from lerobot.common.datasets.backward_compatibility import (
    BackwardCompatibilityError,
    ForwardCompatibilityError,
)
from lerobot.common.datasets.hub_download import get_safe_version
from lerobot.common.datasets.lerobot_dataset import LeRobotDataset


@pytest.mark.parametrize(
    "offered, result",
    [
        (["1.6", "2.0", "2.1", "3.0"], "v2.1"),
        (["2.0", "3.0"], "v2.0"),
        (["1.6"], BackwardCompatibilityError),
        (["3.0"], "v3.0"),
        (["3.1"], ForwardCompatibilityError),
        ([], FileNotFoundError),
    ],
)
def test_the_best_readable_revision_is_chosen(monkeypatch, offered, result):
    monkeypatch.setattr(hub_download, "get_repo_versions", lambda repo_id: [Version(v) for v in offered])
    if isinstance(result, str):
        assert get_safe_version("owner/name", "v2.1") == result
    else:
        with pytest.raises(result, match="owner/name"):
            get_safe_version("owner/name", "v2.1")


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)


def test_a_complete_local_dataset_needs_no_network(recorded_root, no_network):
    assert LeRobotDataset("owner/name", root=recorded_root)[0]["action"][0] == 0.5


def test_offline_mode_and_names_that_are_no_hub_ids_need_no_network(tmp_path, no_network, monkeypatch):
    with pytest.raises(FileNotFoundError, match="not a hub id"):
        LeRobotDataset("no owner", root=tmp_path / "nowhere")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(FileNotFoundError, match="HF_HUB_OFFLINE"):
        LeRobotDataset("owner/name", root=tmp_path / "nowhere")


def test_an_unreachable_hub_gives_the_same_one_message(tmp_path, no_network, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    with pytest.raises(FileNotFoundError, match="--dataset.root .*downloading 'owner/name' failed"):
        LeRobotDataset("owner/name", root=tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()


def test_a_folder_given_as_repo_id_is_recognized(recorded_root, tmp_path, monkeypatch):
    monkeypatch.setattr("lerobot.common.datasets.dataset_metadata.HF_LEROBOT_HOME", tmp_path)
    monkeypatch.chdir(recorded_root.parent)
    with pytest.raises(FileNotFoundError, match="set --dataset.root=set"):
        LeRobotDataset("set")
