"""Domain randomisation: from the seed, and none by default."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("mujoco")

from lerobot.common.envs.koch_sim.expert import KochExpert
from lerobot.common.envs.koch_sim.world import KochWorld

FIELDS = ("geom_rgba", "cam_pos", "cam_quat", "light_diffuse", "geom_friction", "body_mass", "actuator_gainprm")


def model_of(world: KochWorld, seed: int) -> dict[str, np.ndarray]:
    world.reset(seed)
    return {name: getattr(world.model, name).copy() for name in FIELDS}


def test_none_leaves_the_model_alone_and_full_changes_everything():
    plain, full = KochWorld(), KochWorld(randomization="full")
    before, after = model_of(plain, 3), model_of(full, 3)
    other = model_of(plain, 4)
    for name in FIELDS[1:]:
        assert (before[name] == other[name]).all()
        assert not np.allclose(before[name], after[name]), name


def test_the_same_seed_gives_the_same_model_whatever_came_before():
    first, second = KochWorld(randomization="full"), KochWorld(randomization="full")
    model_of(second, 8)
    one, two = model_of(first, 5), model_of(second, 5)
    assert all((one[name] == two[name]).all() for name in FIELDS)
    assert any((one[name] != model_of(first, 6)[name]).any() for name in FIELDS)


def test_light_is_milder_than_full_and_other_words_are_refused():
    base = model_of(KochWorld(), 2)["cam_pos"]
    light = np.abs(model_of(KochWorld(randomization="light"), 2)["cam_pos"] - base).max()
    full = np.abs(model_of(KochWorld(randomization="full"), 2)["cam_pos"] - base).max()
    assert 0 < light < full <= 0.0151
    with pytest.raises(ValueError, match="none, light, full"):
        KochWorld(randomization="wild")


def test_the_expert_still_succeeds():
    world, wins = KochWorld(randomization="full"), 0
    for seed in range(10):
        world.reset(seed)
        expert = KochExpert()
        expert.reset(world)
        while world.frame < 450 and not world.success:
            world.step(expert.act(world))
        wins += world.success
    assert wins >= 9
