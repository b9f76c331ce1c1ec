"""What is uploaded, with the hub's client replaced by a record of the calls."""

import pytest

from lerobot.common.datasets import hub_upload
from lerobot.common.datasets.lerobot_dataset import LeRobotDataset


class Hub:
    """Records every call; it has one old tag and no card."""

    endpoint = "https://hub"

    def __init__(self):
        self.calls = {}

    def __getattr__(self, name):
        def call(*args, **kwargs):
            self.calls[name] = kwargs
            return {"file_exists": False}.get(name, self)

        return call

    @property
    def tags(self):
        return [type("Ref", (), {"name": "v2.1"})]


@pytest.fixture
def hub(monkeypatch):
    hub = Hub()
    monkeypatch.setattr(hub_upload, "HfApi", lambda: hub)
    return hub


def test_folder_card_and_tag(recorded_root, hub):
    dataset = LeRobotDataset("owner/name", root=recorded_root)
    assert dataset.push_to_hub(tags=["koch"], push_videos=False) == "https://hub/datasets/owner/name"
    assert hub.calls["upload_folder"]["folder_path"] == recorded_root
    assert "videos/" in hub.calls["upload_folder"]["ignore_patterns"]
    card = hub.calls["upload_file"]["path_or_fileobj"].decode()
    assert "- LeRobot\n- koch" in card and "3 episodes, 19 frames at 10 FPS" in card and '"codebase_version"' in card
    assert hub.calls["delete_tag"]["tag"] == hub.calls["create_tag"]["tag"] == "v2.1"


def test_a_name_that_is_no_hub_id_is_refused(recorded_root, hub):
    with pytest.raises(ValueError, match="not a hub id"):
        LeRobotDataset("name", root=recorded_root).push_to_hub()
    assert not hub.calls
