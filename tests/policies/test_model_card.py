"""A policy's page on the hub, and its upload."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from lerobot.common.policies import model_card
from lerobot.common.policies.model_card import push_model
from lerobot.configs.default import DatasetConfig
from lerobot.configs.train import TrainPipelineConfig
from tests.policies.smolvla.conftest import tiny_policy


def test_the_card_has_the_metadata_of_the_hub():
    policy = tiny_policy()
    policy.config.repo_id = "me/arm"
    card = policy.generate_model_card("me/data", "smolvla", "mit", ["koch"])
    header = yaml.safe_load(str(card).split("---")[1])
    assert header["license"] == "mit" and header["datasets"] == "me/data" and header["library_name"] == "lerobot"
    assert header["tags"] == ["koch", "lerobot", "robotics", "smolvla"]
    assert "--policy.path=me/arm" in str(card)


class Hub:
    """Keeps what it is given."""

    def create_repo(self, repo_id, private=None, exist_ok=False):
        return SimpleNamespace(repo_id=repo_id)

    def upload_folder(self, repo_id, folder_path, commit_message):
        self.files = {p.name for p in Path(folder_path).iterdir() if p.is_file()}
        return f"https://hub/{repo_id}"


def test_weights_config_train_config_and_card_are_uploaded():
    policy, hub = tiny_policy(), Hub()
    policy.config.repo_id = "me/arm"
    cfg = TrainPipelineConfig(DatasetConfig("me/data"), policy=policy.config)
    assert push_model(policy, cfg, hub) == "https://hub/me/arm"
    assert {"model.safetensors", "config.json", "train_config.json", "README.md"} <= hub.files


def test_without_repository_or_network_nothing_is_uploaded(monkeypatch):
    policy = tiny_policy()
    with pytest.raises(ValueError, match="--policy.repo_id"):
        policy.push_model_to_hub(None)
    policy.config.repo_id = "me/arm"
    monkeypatch.setattr(model_card, "hub_is_reachable", lambda: False)
    with pytest.raises(ConnectionError, match="push_pretrained.py"):
        policy.push_model_to_hub(None)
