"""Pretrained backbone weights from files and caches."""

import pytest
import torch
from safetensors.torch import save_file

from lerobot.common.policies.common.resnet import ResNet
from lerobot.common.policies.common.resnet_weights import FILES, load_resnet_weights

V1 = "ResNet18_Weights.IMAGENET1K_V1"


@pytest.fixture
def published():
    """The tensors of a published file: trainable norms with their counters, and a classifier."""
    torch.manual_seed(0)
    state = ResNet("resnet18", norm="batch").state_dict()
    state["bn1.running_var"].uniform_(0.5, 2)
    return {**state, "fc.weight": torch.zeros(1000, 512), "fc.bias": torch.zeros(1000)}


@pytest.fixture
def offline(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return tmp_path / "hub" / "checkpoints"


def assert_loaded(backbone, state):
    own = backbone.state_dict()
    assert torch.equal(own["layer4.1.conv2.weight"], state["layer4.1.conv2.weight"])
    assert torch.equal(own["bn1.running_var"], state["bn1.running_var"])


@pytest.mark.parametrize("norm", ["frozen", "batch"])
def test_local_pth_file(tmp_path, published, norm):
    torch.save(published, tmp_path / "my.pth")
    backbone = ResNet("resnet18", norm)
    load_resnet_weights(backbone, str(tmp_path / "my.pth"))
    assert_loaded(backbone, published)


def test_local_safetensors_file_and_fewer_layers(tmp_path, published):
    save_file(published, tmp_path / "my.safetensors")
    backbone = ResNet("resnet18", layers=2)
    load_resnet_weights(backbone, str(tmp_path / "my.safetensors"))
    assert torch.equal(backbone.layer2[1].conv2.weight, published["layer2.1.conv2.weight"])


@pytest.mark.parametrize("name", [V1, "IMAGENET1K_V1", "ResNet18_Weights.DEFAULT"])
def test_published_name_is_found_in_the_download_cache(offline, published, name):
    offline.mkdir(parents=True)
    torch.save(published, offline / FILES["resnet18"]["IMAGENET1K_V1"])
    backbone = ResNet("resnet18")
    load_resnet_weights(backbone, name)
    assert_loaded(backbone, published)


def test_offline_and_uncached_names_flag_file_and_folder(offline):
    with pytest.raises(FileNotFoundError) as e:
        load_resnet_weights(ResNet("resnet18"), V1)
    for part in (V1, "--policy.pretrained_backbone_weights=null", "resnet18-f37072fd.pth", str(offline)):
        assert part in str(e.value)


def test_weights_of_another_net_are_refused():
    with pytest.raises(ValueError, match="vision_backbone=resnet34.*ResNet34_Weights.IMAGENET1K_V1"):
        load_resnet_weights(ResNet("resnet34"), V1)


def test_file_of_another_net_is_refused(tmp_path, published):
    torch.save(published, tmp_path / "my.pth")
    with pytest.raises(ValueError, match="does not fit resnet34"):
        load_resnet_weights(ResNet("resnet34"), str(tmp_path / "my.pth"))


def test_missing_file_is_named():
    with pytest.raises(FileNotFoundError, match="nowhere.pth.*=null"):
        load_resnet_weights(ResNet("resnet18"), "nowhere.pth")
