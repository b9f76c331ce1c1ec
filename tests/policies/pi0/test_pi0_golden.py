"""The flow-matching core of pi0 against numbers of LeRobot 0.3.3, with the key names of 0.4.4."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lerobot.common.policies.common.flow_matching import make_att_2d_masks
from lerobot.common.policies.pi0.modeling_pi0 import PI0Policy

from ..weights_formula import fill
from .conftest import ARTIFACTS, tiny_config

CLOSE = {"atol": 1e-5, "rtol": 1e-5}


class Case:
    """The golden numbers, and the policy with the weights of the formula."""

    def __init__(self, folder: Path):
        self.tensors = load_file(folder / "tensors.safetensors")
        self.meta = json.loads((folder / "meta.json").read_text())
        self.policy = PI0Policy(config_of(self.meta["spec"]))
        self.model = self.policy.model
        fill(self.model, self.meta["salt"])
        self.model.eval()

    def several(self, name: str) -> list[torch.Tensor]:
        return [self.tensors[f"{name}.{i}"] for i in range(self.meta["spec"]["cams"])]

    def prefix(self):
        """Embedded prefix and which of its tokens are real."""
        images, tokens = self.several("in.image"), self.tensors["in.tokens"]
        embedded = self.model.embed_prefix(self.model.embed_images(images), tokens)
        per_image = (embedded.shape[1] - tokens.shape[1]) // len(images)
        masks = [m[:, None].expand(-1, per_image) for m in self.several("in.image_mask")]
        return embedded, torch.cat([*masks, self.tensors["in.token_mask"]], 1)

    def context(self):
        return self.model.context(*self.model.encode_prefix(*self.prefix()), self.tensors["in.state"])


def config_of(spec: dict):
    heads = {
        "num_attention_heads": spec["heads"],
        "num_key_value_heads": spec["kv"],
        "head_dim": spec["hd"],
        "num_hidden_layers": spec["layers"],
        "vocab_size": spec["vocab"],
    }
    sizes = {
        "vision_config": {
            "hidden_size": spec["vw"],
            "intermediate_size": spec["vmlp"],
            "num_attention_heads": spec["vh"],
            "num_hidden_layers": spec["vl"],
            "image_size": spec["px"],
        },
        "text_config": {"hidden_size": spec["width"], "intermediate_size": spec["mlp"], **heads},
        "expert_config": {"hidden_size": spec["ew"], "intermediate_size": spec["emlp"], **heads},
    }
    widths = {"max_state_dim": spec["adim"], "max_action_dim": spec["adim"], "state": spec["adim"]}
    return tiny_config(
        vlm_config=sizes,
        action=spec["adim"],
        chunk_size=spec["chunk"],
        num_inference_steps=spec["steps"],
        freeze_vision_encoder=True,
        legacy_rounding=True,
        **widths,
    )


@pytest.fixture(scope="module", params=sorted(ARTIFACTS.glob("pi0_core*")), ids=lambda folder: folder.name)
def case(request) -> Case:
    return Case(request.param)


def test_names_shapes_and_order_of_the_weights(case):
    expected = [(k, tuple(shape)) for k, shape in case.meta["state_dict"].items()]
    assert [(k, tuple(v.shape)) for k, v in case.model.state_dict().items()] == expected


def test_prefix(case):
    embedded, real = case.prefix()
    torch.testing.assert_close(embedded, case.tensors["stage.prefix_embs"], **CLOSE)
    assert torch.equal(real, case.tensors["stage.prefix_pad_masks"])


def test_suffix_and_its_mask(case):
    t = case.tensors
    suffix = case.model.embed_suffix(t["in.state"], t["stage.x_t"], t["time"])
    torch.testing.assert_close(suffix, t["stage.suffix_embs"], **CLOSE)
    pad = torch.cat([t["stage.prefix_pad_masks"], t["stage.suffix_pad_masks"]], 1)
    blocks = torch.cat([t["stage.prefix_att_masks"], t["stage.suffix_att_masks"]], 1)
    allowed = make_att_2d_masks(pad, blocks)[:, -suffix.shape[1] :]
    assert torch.equal(case.context().bias[:, 0] == 0, allowed)


def test_velocity_and_loss(case):
    t = case.tensors
    context = case.context()
    torch.testing.assert_close(case.model.velocity(t["stage.x_t"], t["time"], context), t["train.v_t"], **CLOSE)
    losses = case.model(context, t["in.actions"], t["noise"], t["time"])
    torch.testing.assert_close(losses, t["loss_elementwise"], atol=1e-4, rtol=1e-5)
    assert losses.mean().item() == pytest.approx(case.meta["loss"], rel=1e-5)


def test_gradients(case):
    t = case.tensors
    case.model.zero_grad()
    case.model(case.context(), t["in.actions"], t["noise"], t["time"]).mean().backward()
    for name, parameter in case.model.named_parameters():
        expected = case.meta["grad_norm"].get(name, 0.0)
        found = 0.0 if parameter.grad is None else parameter.grad.norm().item()
        assert found == pytest.approx(expected, rel=1e-4, abs=1e-5), name


def test_denoising(case):
    t, seen = case.tensors, []
    velocity = case.model.velocity
    with torch.no_grad():
        context = case.context()
        case.model.velocity = lambda *args: seen.append(velocity(*args)) or seen[-1]
        actions = case.model.sample_actions(context, t["noise"])
        del case.model.velocity
    torch.testing.assert_close(torch.stack(seen), t["infer.v_t"], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(actions, t["infer.actions"], atol=2e-5, rtol=1e-5)
