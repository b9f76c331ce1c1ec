"""Processors of a policy, new and from a checkpoint, and where checkpoints are asked for."""

import json
from types import SimpleNamespace

import pytest

from lerobot.common.policies import ACTConfig
from lerobot.common.policies.adapters import ADAPTER_CONFIG, load_with_adapter
from lerobot.common.policies.factory import make_pre_post_processors
from lerobot.common.processor import DeviceProcessorStep


def test_an_override_that_fits_no_step_is_refused():
    with pytest.raises(KeyError, match="'normaliser_processor'.*do not match any step.*normalizer_processor"):
        make_pre_post_processors(ACTConfig(device="cpu"), preprocessor_overrides={"normaliser_processor": {"eps": 1.0}})


def test_a_saved_preprocessor_without_a_device_step_is_loaded(tmp_path):
    config = ACTConfig(device="cpu")
    pre, post = make_pre_post_processors(config)
    pre.steps = [step for step in pre.steps if not isinstance(step, DeviceProcessorStep)]
    for part in (pre, post):
        part.save_pretrained(tmp_path)
    loaded, _ = make_pre_post_processors(config, tmp_path)
    assert [type(step) for step in loaded] == [type(step) for step in pre]


def test_processors_come_from_the_revision_that_is_asked_for(monkeypatch):
    def find_file(name, filename, **hub):
        assert hub["revision"] == "v2"
        raise FileNotFoundError(name)

    monkeypatch.setattr("lerobot.common.policies.factory.find_file", find_file)
    with pytest.raises(FileNotFoundError):
        make_pre_post_processors(ACTConfig(device="cpu"), "owner/name", pretrained_revision="v2")


def test_the_revision_of_an_adapter_is_not_that_of_its_base(tmp_path):
    (tmp_path / ADAPTER_CONFIG).write_text(json.dumps({"base_model_name_or_path": "owner/base"}))

    class Base:
        @staticmethod
        def from_pretrained(name, *, config, strict, revision):
            assert (name, strict, revision) == ("owner/base", True, None)
            raise FileNotFoundError("not in the cache")

    with pytest.raises(FileNotFoundError, match="belongs to the policy 'owner/base'"):
        load_with_adapter(Base, tmp_path, SimpleNamespace(use_peft=True), strict=True, revision="v2")
