"""ResNets with torchvision's tensor names."""

import pytest
import torch

from lerobot.common.policies.common.resnet import (
    FrozenBatchNorm2d,
    ResNet,
    make_norm,
)


def count(net: ResNet) -> int:
    """Parameters with the classifier that the published net has."""
    return sum(p.numel() for p in net.parameters()) + 1000 * (net.out_channels + 1)


@pytest.mark.parametrize(
    "name, parameters", [("resnet18", 11_689_512), ("resnet34", 21_797_672), ("resnet50", 25_557_032)]
)
def test_published_parameter_counts(name, parameters):
    assert count(ResNet(name, norm="batch")) == parameters


def test_tensor_names_and_shapes_of_resnet18():
    state = ResNet("resnet18").state_dict()
    shapes = {k: tuple(v.shape) for k, v in state.items()}
    assert shapes["conv1.weight"] == (64, 3, 7, 7)
    assert shapes["layer1.1.bn2.running_var"] == (64,)
    assert shapes["layer3.0.conv1.weight"] == (256, 128, 3, 3)
    assert shapes["layer4.0.downsample.0.weight"] == (512, 256, 1, 1)
    assert shapes["layer4.0.downsample.1.bias"] == (512,)
    assert "layer1.0.downsample.0.weight" not in shapes
    assert len(shapes) == 20 + 20 * 4


def test_trainable_tensors_by_norm():
    names = {norm: {n for n, _ in ResNet("resnet18", norm).named_parameters()} for norm in ("frozen", "group")}
    assert len(names["frozen"]) == 20 and all("conv" in n or "downsample.0" in n for n in names["frozen"])
    assert len(names["group"]) == 60
    assert "bn1.num_batches_tracked" in ResNet("resnet18", "batch").state_dict()
    assert not [k for k in ResNet("resnet18", "group").state_dict() if "running" in k]


def test_group_norm_has_sixteen_channels_per_group():
    assert [make_norm("group", c).num_groups for c in (64, 128, 256, 512, 16, 8)] == [4, 8, 16, 32, 1, 1]


@pytest.mark.parametrize(
    "picture, layers, expected",
    [((480, 640), 4, (15, 20)), ((84, 84), 4, (3, 3)), ((96, 128), 3, (6, 8)), ((96, 128), 2, (12, 16))],
)
def test_map_size_and_channels(picture, layers, expected):
    net = ResNet("resnet18", "group", width=16, layers=layers)
    features = net(torch.zeros(1, 3, *picture))
    assert features.shape == (1, net.out_channels, *expected)
    assert net.out_channels == 16 * 2 ** (layers - 1)


def test_dilated_resnet50_keeps_stride_sixteen():
    net = ResNet("resnet50", dilate=True)
    assert net(torch.zeros(1, 3, 64, 96)).shape == (1, 2048, 4, 6)
    first, second = net.layer4[0], net.layer4[1]
    assert (first.conv2.stride, first.conv2.dilation, first.downsample[0].stride) == ((1, 1), (1, 1), (1, 1))
    assert (second.conv2.dilation, second.conv2.padding) == ((2, 2), (2, 2))
    assert net.layer3[0].conv2.stride == (2, 2)


def test_basic_blocks_refuse_dilation():
    with pytest.raises(NotImplementedError, match="resnet18.*replace_final_stride_with_dilation"):
        ResNet("resnet18", dilate=True)


def test_unknown_name_lists_the_known_ones():
    with pytest.raises(ValueError, match="resnet19.*resnet18, resnet34"):
        ResNet("resnet19")


def test_frozen_norm_equals_batch_norm_in_eval_mode():
    torch.manual_seed(0)
    batch_norm = torch.nn.BatchNorm2d(6).eval()
    for tensor in (*batch_norm.parameters(), batch_norm.running_mean, batch_norm.running_var):
        torch.nn.init.uniform_(tensor, 0.5, 1.5)
    frozen = FrozenBatchNorm2d(6)
    frozen.load_state_dict(batch_norm.state_dict())
    x = torch.randn(2, 6, 4, 5)
    torch.testing.assert_close(frozen(x), batch_norm(x), atol=1e-6, rtol=1e-6)


def test_frozen_norm_never_changes():
    net = ResNet("resnet18", width=8, layers=2).train()
    before = {k: v.clone() for k, v in net.state_dict().items() if "bn" in k}
    net(torch.randn(2, 3, 32, 32)).sum().backward()
    assert all(torch.equal(net.state_dict()[k], v) for k, v in before.items())
    assert not any("bn" in n for n, _ in net.named_parameters())


def test_norms_do_not_change_which_weights_a_seed_gives():
    nets = []
    for norm in ("frozen", "group", "batch"):
        torch.manual_seed(3)
        nets.append(ResNet("resnet18", norm, width=8))
    assert torch.equal(nets[0].layer4[1].conv2.weight, nets[1].layer4[1].conv2.weight)
    assert torch.equal(nets[0].conv1.weight, nets[2].conv1.weight)
