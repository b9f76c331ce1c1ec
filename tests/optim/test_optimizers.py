"""Optimizers: equal to torch's plain ones, and continuing from states that those saved."""

from __future__ import annotations

import pytest
import torch

from lerobot.common.optim.optimizers import (
    AdamConfig,
    AdamWConfig,
    load_optimizer_state,
    save_optimizer_state,
)


def parameters() -> list[torch.nn.Parameter]:
    torch.manual_seed(0)
    return [torch.nn.Parameter(torch.randn(5, 3)), torch.nn.Parameter(torch.randn(4, dtype=torch.bfloat16))]


def steps(optimizer, held, count: int) -> None:
    torch.manual_seed(1)
    for _ in range(count):
        for p in held:
            p.grad = torch.randn_like(p)
        optimizer.step()


@pytest.mark.parametrize(("config", "plain"), [(AdamConfig, torch.optim.Adam), (AdamWConfig, torch.optim.AdamW)])
def test_steps_are_those_of_the_plain_optimizer(config, plain):
    ours, theirs = parameters(), parameters()
    settings = config(lr=1e-2, weight_decay=0.1)
    steps(settings.build(ours), ours, 5)
    steps(plain(theirs, lr=1e-2, weight_decay=0.1, foreach=False), theirs, 5)
    torch.testing.assert_close(ours[0], theirs[0], atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(ours[1], theirs[1], atol=2e-2, rtol=2e-2)


def test_a_state_of_the_plain_optimizer_is_continued(tmp_path):
    plain, ours = parameters(), parameters()
    saved = torch.optim.AdamW(plain, lr=1e-2)
    steps(saved, plain, 3)
    save_optimizer_state(saved, tmp_path)
    for a, b in zip(ours, plain, strict=True):
        a.data.copy_(b.data)
    loaded = load_optimizer_state(AdamWConfig(lr=1e-2).build(ours), tmp_path)
    steps(loaded, ours, 2)
    steps(saved, plain, 2)
    torch.testing.assert_close(ours[0], plain[0], atol=1e-6, rtol=1e-6)
