"""What a run leaves for others: a page, a card, an upload now or later."""

import json
import shlex
from pathlib import Path
from types import SimpleNamespace

import pytest

from lerobot.common.training import publish
from lerobot.common.training.publish import push_pending
from lerobot.common.training.report import next_command, report_command
from lerobot.common.training.summary_page import _resume
from lerobot.configs.default import DatasetConfig
from lerobot.scripts import push_pretrained
from lerobot.scripts.train import train


class Hub:
    """Stands for the hub: keeps what is uploaded, or is out of reach."""

    def __init__(self):
        self.offline, self.repositories = False, {}

    def create_repo(self, repo_id, private, exist_ok):
        if self.offline:
            raise OSError("no network")
        return SimpleNamespace(repo_id=repo_id)

    def upload_folder(self, repo_id, folder_path, **_):
        files = {str(p.relative_to(folder_path)): p.read_bytes() for p in Path(folder_path).rglob("*") if p.is_file()}
        self.repositories[repo_id] = files
        return f"https://hub/{repo_id}"


@pytest.fixture
def hub(monkeypatch, tmp_path):
    hub = Hub()
    monkeypatch.setattr(publish, "HfApi", lambda: hub)
    monkeypatch.setattr(publish, "hub_is_reachable", lambda: True)
    monkeypatch.setattr(publish, "QUEUE", tmp_path / "queue")
    return hub


def publishing(make_config, dataset_root):
    cfg = make_config(steps=2, dataset=DatasetConfig(root=str(dataset_root), eval_split=0.34))
    cfg.policy.push_to_hub, cfg.policy.repo_id, cfg.policy.tags = True, "me/grasper", ["koch"]
    return cfg


def test_a_finished_run_is_uploaded_with_card_and_results(make_config, dataset_root, hub):
    cfg = publishing(make_config, dataset_root)
    train(cfg)
    files = hub.repositories["me/grasper"]
    needed = {"config.json", "model.safetensors", "policy_preprocessor.json", "train_config.json", "curves.png"}
    assert needed | {"summary.html", "training_record.json"} <= set(files)
    card = files["README.md"].decode()
    assert card.startswith("---\n") and '"koch"' in card and "Pick up the red cube." in card
    assert "action error, 1 held-out episodes" in card
    page = (cfg.output_dir / "summary.html").read_text()
    assert "data:image/png;base64," in page and "joint_5" in page and "--resume=true" in page


def test_without_a_network_the_upload_waits_in_the_queue(make_config, dataset_root, hub, tmp_path, caplog):
    hub.offline = True
    train(publishing(make_config, dataset_root))
    assert not hub.repositories and "push_pretrained.py --pending" in caplog.text
    assert len(list((tmp_path / "queue").iterdir())) == 1
    hub.offline = False
    assert push_pending() == {"me/grasper": "https://hub/me/grasper"}
    assert "model.safetensors" in hub.repositories["me/grasper"] and not list((tmp_path / "queue").iterdir())


def test_where_nothing_can_be_queued_the_upload_is_tried_at_once(hub, tmp_path, caplog):
    (tmp_path / "file").touch()
    (tmp_path / "model").mkdir()
    queue = tmp_path / "file" / "queue"
    assert publish.publish(tmp_path / "model", "me/grasper", queue=queue) == "https://hub/me/grasper"
    hub.offline = True
    assert publish.publish(tmp_path / "model", "me/other", queue=queue) is None
    assert f"push_pretrained.py --repo_id=me/other --pretrained_path={tmp_path / 'model'}" in caplog.text


def test_a_queued_folder_that_is_gone_is_dropped(hub, tmp_path, caplog):
    (tmp_path / "queue").mkdir()
    job = {"repo_id": "me/gone", "folder": str(tmp_path / "gone"), "private": None}
    (tmp_path / "queue" / "1.json").write_text(json.dumps(job))
    assert push_pending() == {} and not list((tmp_path / "queue").iterdir())


def test_an_empty_queue_is_told(hub, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["push_pretrained.py", "--pending=true"])
    push_pretrained.main()
    assert capsys.readouterr().out == "Nothing is queued.\n"


def test_a_repository_name_is_needed(make_config):
    cfg = make_config()
    cfg.policy.push_to_hub = True
    with pytest.raises(ValueError, match="--policy.repo_id"):
        train(cfg)


def test_the_record_of_a_checkpoint_says_what_it_depended_on(make_config):
    cfg = make_config(steps=1)
    train(cfg)
    record = json.loads((cfg.output_dir / "checkpoints/last/pretrained_model/training_record.json").read_text())
    assert {"torch", "python", "numpy"} <= set(record["versions"]) and record["seed"] == cfg.seed
    data = record["dataset"]
    assert data["frames"] == 36 and data["tasks"] == ["Pick up the red cube."] and len(data["fingerprint"]) == 32
    assert len(data["stats"]["action"]["mean"]) == 6 and record["step"] == 1
    assert record["device"]["device"] == "cpu" and "source" in record


def test_tensorboard_gets_the_numbers_and_a_missing_tracker_names_its_extra(make_config, monkeypatch, tmp_path):
    import sys

    monkeypatch.setitem(sys.modules, "trackio", None)
    cfg = make_config(steps=1)
    cfg.trackio.enable = True
    with pytest.raises(ImportError, match=r"\[trackio\]"):
        train(cfg)
    pytest.importorskip("tensorboard")
    board = make_config(steps=2, output_dir=tmp_path / "board", tensorboard=True)
    train(board)
    events = list((tmp_path / "board" / "tensorboard").iterdir())
    assert events and b"train/loss" in events[0].read_bytes()


def test_printed_commands_can_be_typed_where_folders_have_spaces(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    checkpoint = tmp_path / "my runs" / "last"
    for command in (next_command(checkpoint), report_command(checkpoint, str(tmp_path / "my data"))):
        assert "--policy.path=my runs/last" in shlex.split(command)
    page = _resume(SimpleNamespace(output_dir=Path("my runs")))
    assert shlex.split(page)[-1] == "--output_dir=my runs"
