"""Loss, gradients and actions of every kind of configuration against a slow second implementation."""

import copy

import pytest
import torch

from lerobot.common.policies.smolvla.modeling_smolvla import SmolVLAPolicy
from lerobot.common.policies.smolvla.vlm_source import VLMSource

from .conftest import tiny_batch, tiny_config
from .reference import Reference

FROZEN = {"freeze_vision_encoder": True, "train_expert_only": True}
# Fields of the configuration; "vision", "text" and "scale_factor" are changes of the vision-language model.
CASES = {
    "default": {},
    "default freezing": FROZEN,
    "frozen vision": {"freeze_vision_encoder": True},
    "frozen state projection": {"train_state_proj": False, **FROZEN},
    "self attention only": {"attention_mode": "self_attn"},
    "self attention, shallow expert": {"attention_mode": "self_attn", "num_expert_layers": 2},
    "another name with cross": {"attention_mode": "my_cross"},
    "only cross layers": {"self_attn_every_n_layers": -1},
    "only cross layers, zero": {"self_attn_every_n_layers": 0},
    "only joint layers": {"self_attn_every_n_layers": 1},
    "joint every third": {"self_attn_every_n_layers": 3},
    "joint every fourth": {"self_attn_every_n_layers": 4, **FROZEN},
    "expert at every second layer": {"num_expert_layers": 2},
    "expert at every second layer, only cross": {"num_expert_layers": 2, "self_attn_every_n_layers": -1},
    "expert at every third layer": {"num_expert_layers": 2, "num_vlm_layers": 6, "text": {"num_hidden_layers": 6}},
    "one expert layer": {"num_expert_layers": 1, **FROZEN},
    "as many expert layers as text layers": {"num_expert_layers": 4},
    "some text layers": {"num_vlm_layers": 3},
    "all text layers": {"num_vlm_layers": 0, "text": {"num_hidden_layers": 3}},
    "wide expert": {"expert_width_multiplier": 1.25},
    "narrow expert": {"expert_width_multiplier": 0.5},
    "one kv head": {"text": {"num_key_value_heads": 1}},
    "no grouping": {"text": {"num_key_value_heads": 4}},
    "wide heads": {"text": {"head_dim": 16}},
    "other text width": {"text": {"hidden_size": 48, "intermediate_size": 40, "rms_norm_eps": 1e-3}},
    "biases": {"text": {"attention_bias": True, "mlp_bias": True}},
    "small patches": {"vision": {"patch_size": 4}, "scale_factor": 4},
    "odd patches": {"vision": {"patch_size": 7, "image_size": 42}, "scale_factor": 3, "picture": (42, 42)},
    "patches one by one": {"vision": {"patch_size": 16}, "scale_factor": 1},
    "wide vision": {"vision": {"hidden_size": 24, "num_attention_heads": 3, "layer_norm_eps": 1e-3}},
    "deep vision": {"vision": {"num_hidden_layers": 3, "intermediate_size": 20}},
    "larger pictures than the table": {"picture": (48, 64)},
    "smaller pictures than the table": {"picture": (16, 48)},
    "letterbox": {"size": (30, 50)},
    "upright letterbox": {"size": (50, 30)},
    "no resize": {"resize_imgs_with_padding": None, "size": (16, 48)},
    "prefix length": {"prefix_length": 60},
    "prefix length with markers": {"prefix_length": 70, "add_image_special_tokens": True},
    "markers": {"add_image_special_tokens": True, **FROZEN},
    "empty camera": {"empty_cameras": 1},
    "empty camera with markers": {"empty_cameras": 2, "add_image_special_tokens": True},
    "absent camera": {"cameras": ("top", "wrist", "absent")},
    "one camera": {"cameras": ("top",)},
    "three cameras": {"cameras": ("top", "wrist", "side"), **FROZEN},
    "aloha": {"adapt_to_pi_aloha": True, "state": 14, "action": 14},
    "no padding": {"max_state_dim": 6, "max_action_dim": 6},
    "state wider than actions": {"state": 9, "action": 4, "max_state_dim": 12, "max_action_dim": 5},
    "periods": {"min_period": 1e-2, "max_period": 2.0},
    "one step": {"num_steps": 1},
    "seven steps": {"num_steps": 7},
    "long chunk": {"chunk_size": 11},
    "historic loss": {"loss_over_padding": True},
}


def make_policy(vision=None, text=None, scale_factor=2, picture=None, **changes) -> SmolVLAPolicy:
    vlm = copy.deepcopy(tiny_config().vlm_config)
    vlm["vision_config"] |= vision or {}
    vlm["text_config"] |= text or {}
    vlm["scale_factor"] = scale_factor
    if picture is not None:
        changes["resize_imgs_with_padding"] = picture[::-1]
    torch.manual_seed(0)
    policy = SmolVLAPolicy(tiny_config(**{"size": (32, 32), "vlm_config": vlm, **changes}))
    with torch.no_grad():  # large enough that every part moves the result
        for name, p in policy.named_parameters():
            p.normal_(0, 0.15 if p.ndim > 1 else 0.1)
            if "norm" in name and name.endswith("weight"):
                p.add_(1)
    return policy


def make_batch(policy) -> dict:
    batch = tiny_batch(policy.config, leave_out=("empty_camera_0", "empty_camera_1", "absent"))
    camera = next(iter(policy.config.image_features))
    return {**batch, f"{camera}_padding_mask": torch.tensor([True, len(policy.config.image_features) == 1])}


@pytest.mark.parametrize("changes", CASES.values(), ids=CASES.keys())
def test_loss_gradients_and_actions_of_every_configuration(changes):
    policy = make_policy(**changes)
    batch, config = make_batch(policy), policy.config
    noise, time = torch.randn(2, config.chunk_size, config.max_action_dim), torch.tensor([0.3, 0.9])
    markers = policy.source.image_token_ids() if config.add_image_special_tokens else None
    reference = Reference(config, policy.source.config(), policy.state_dict(), markers)
    policy.train()
    loss, _ = policy.forward(batch, noise=noise, time=time)
    expected = reference.loss(batch, noise, time)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    loss.backward()
    expected.backward()
    for name, p in policy.named_parameters():
        truth = reference.w[name.removeprefix("model.")].grad
        if not p.requires_grad:
            assert p.grad is None
        else:  # a part that the result does not depend on has no gradient, or zeros
            found, truth = (torch.zeros(p.shape).double() if g is None else g.double() for g in (p.grad, truth))
            torch.testing.assert_close(found, truth, rtol=1e-3, atol=2e-5 * max(1, truth.abs().max().item()))
    with torch.no_grad():
        found, truth = policy.predict_action_chunk(batch, noise=noise), reference.actions(batch, noise)
    torch.testing.assert_close(found.double(), truth, rtol=0, atol=1e-5 * max(1, truth.abs().max().item()))


def test_the_cases_differ():
    losses = {}
    for name in ("default", "self attention only", "only cross layers", "joint every third", "one kv head", "periods"):
        policy = make_policy(**CASES[name])
        draws = {"noise": torch.ones(2, 5, 32), "time": torch.tensor([0.3, 0.9])}
        losses[name] = round(policy.forward(make_batch(policy), **draws)[0].item(), 6)
    assert len(set(losses.values())) == len(losses)


def test_the_reference_reads_the_configuration_that_is_saved(tmp_path):
    policy = make_policy(vision={"patch_size": 4}, scale_factor=4)
    policy.save_pretrained(tmp_path)
    raw = VLMSource(policy.config.vlm_model_name, tmp_path).config()
    assert raw["vision_config"]["patch_size"] == 4 and raw == policy.source.config()
