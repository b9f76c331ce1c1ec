"""The simulated arm: geometry, physics, layouts, success rule, expert, pictures."""

import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

mujoco = pytest.importorskip("mujoco", minversion="3.1.6")

from lerobot.common.envs.koch_sim import scene  # noqa: E402
from lerobot.common.envs.koch_sim.arm import JOINT_HIGH, JOINT_LOW, REST_POSE  # noqa: E402
from lerobot.common.envs.koch_sim.demonstration import demonstrate, successful_attempt  # noqa: E402
from lerobot.common.envs.koch_sim.expert import KochExpert  # noqa: E402
from lerobot.common.envs.koch_sim.gl import check_gl  # noqa: E402
from lerobot.common.envs.koch_sim.kinematics import OutOfReachError, inverse, reach_down  # noqa: E402
from lerobot.common.envs.koch_sim.units import from_degrees, to_degrees  # noqa: E402
from lerobot.common.envs.koch_sim.world import KochWorld  # noqa: E402

KINEMATICS = [  # angles in degrees -> pinch point in metres
    ((0, 0, 0, 0, 0, 0), (0.3028, 0.0012, 0.0447)),
    ((0, 90, 90, 0, 0, 0), (0.2093, 0.0012, 0.1678)),
    ((0, 90, 90, 90, 0, 0), (0.1038, 0.0012, 0.0613)),
    (REST_POSE, (0.0898, 0.0012, 0.0264)),
    ((30, 100, 120, 70, 0, 40), (0.0680, -0.0447, 0.0277)),
    ((-45, 60, 80, 60, 90, 20), (0.1153, 0.1283, 0.0065)),
]
JAW_GAPS = [
    (0, 1.5),
    (10, 9.9),
    (20, 18.5),
    (24, 21.9),
    (28, 25.3),
    (40, 35.0),
    (45, 38.7),
    (60, 48.9),
    (90, 61.5),
]


@pytest.fixture(scope="module")
def world():
    world = KochWorld("A", width=128, height=96)
    world.reset(0)
    yield world
    world.close()


def pose(world: KochWorld, angles) -> None:
    world.data.qpos[world.arm_slice] = np.deg2rad(angles)
    mujoco.mj_forward(world.model, world.data)


def run_expert(world: KochWorld, seed: int) -> bool:
    world.reset(seed)
    expert = KochExpert()
    expert.reset(world)
    while world.frame < 450 and not world.success:
        world.step(expert.act(world))
    return world.success


@pytest.mark.parametrize(("angles", "point"), KINEMATICS)
def test_pinch_point_is_where_the_kinematic_table_says(world, angles, point):
    world.reset(0)
    pose(world, angles)
    np.testing.assert_allclose(world.tcp, point, atol=1e-4)


@pytest.mark.parametrize(("angle", "gap_mm"), JAW_GAPS)
def test_jaw_gap_follows_the_gripper_angle(world, angle, gap_mm):
    world.reset(0)
    pose(world, (0, 0, 0, 0, 0, angle))
    static, moving = (world.data.geom(name) for name in ("static_pad", "moving_pad"))
    thickness = world.model.geom("moving_pad").size[1] + world.model.geom("static_pad").size[1]
    assert 1000 * (moving.xpos[1] - static.xpos[1] - thickness) == pytest.approx(gap_mm, abs=0.06)


@pytest.mark.parametrize("tilt", [0.0, 20.0])
def test_inverse_kinematics_inverts_the_model(world, tilt):
    world.reset(0)
    point = (0.13, -0.07, 0.03)
    angles = inverse(point, tilt - 90.0, roll=0.0, gripper=20.0)
    pose(world, angles)
    np.testing.assert_allclose(world.tcp, point, atol=2e-4)
    assert angles[1] - angles[2] - angles[3] == pytest.approx(tilt - 90.0)


def test_unreachable_points_are_refused():
    with pytest.raises(OutOfReachError, match="out of reach"):
        reach_down((0.4, 0.0, 0.05), 0.0, 20.0)


def test_arm_holds_the_rest_pose(world):
    world.reset(0)
    for _ in range(60):
        world.step(REST_POSE)
    np.testing.assert_allclose(world.joint_angles(), REST_POSE, atol=1.0)


def test_one_step_is_a_thirtieth_of_a_second(world):
    world.reset(0)
    world.step(REST_POSE)
    assert world.data.time == pytest.approx(1 / 30, abs=1e-9)


def test_targets_beyond_the_joint_range_are_clipped(world):
    world.reset(0)
    world.step(np.full(6, 1000.0))
    np.testing.assert_allclose(np.rad2deg(world.data.ctrl), JOINT_HIGH)


def test_same_seed_gives_the_same_bytes():
    states, pictures = [], []
    for _ in range(2):
        world = KochWorld("B", width=128, height=96)
        world.reset(7)
        for _ in range(20):
            world.step((0, 100, 120, 40, 0, 20))
        states.append(world.data.qpos.tobytes() + world.data.qvel.tobytes())
        pictures.append(world.render("laptop").tobytes())
        world.close()
    assert states[0] == states[1]
    assert pictures[0] == pictures[1]


def test_two_worlds_do_not_interact(world):
    world.reset(3)
    world.step(REST_POSE)
    before = world.data.qpos.copy()
    other = KochWorld("A")
    other.reset(4)
    other.step(REST_POSE)
    np.testing.assert_array_equal(world.data.qpos, before)


@pytest.mark.parametrize("name", ["A", "B"])
def test_layouts_keep_to_the_spawn_area(name):
    for seed in range(200):
        layout = scene.draw_layout(name, seed)
        fewest, most = scene.CUBE_COUNTS[name]
        assert fewest <= len(layout.colours) <= most
        assert len(set(layout.colours)) == len(layout.colours)
        assert layout.colours[0] in layout.task
        for x, y, _ in layout.poses:
            angle = np.rad2deg(np.arctan2(y, x - scene.PAN_AXIS[0]))
            assert 0.12 <= np.hypot(x - scene.PAN_AXIS[0], y) <= 0.18
            assert -50 <= angle <= 35
            assert np.hypot(x - scene.TRAY[0], y - scene.TRAY[1]) >= 0.075


def test_every_colour_is_named_by_some_episode():
    assert {scene.draw_layout("A", seed).colours[0] for seed in range(100)} == set(scene.COLOURS)


def put_in_tray(world: KochWorld, index: int) -> None:
    world.cube_pose(index)[:3] = (*scene.TRAY, scene.TRAY_FLOOR + scene.CUBE_HALF)


def test_success_needs_ten_quiet_frames_in_the_tray(world):
    world.reset(0)
    put_in_tray(world, 0)
    held = []
    for _ in range(15):
        world.step(REST_POSE)
        held.append(world.success)
    assert not any(held[:9])
    assert held[-1]
    assert world.stage == "success"


def test_another_cube_in_the_tray_is_no_success():
    world = KochWorld("B")
    world.reset(0)
    put_in_tray(world, 1)
    for _ in range(15):
        world.step(REST_POSE)
    assert not world.success


def test_a_gripper_at_the_cube_is_no_success(world):
    world.reset(0)
    put_in_tray(world, 0)
    hold = reach_down((*scene.TRAY, 0.03), 0.0, 45.0)
    pose(world, hold)
    for _ in range(15):
        world.step(hold)
    assert np.linalg.norm(world.tcp - world.cube_pose()[:3]) < 0.03
    assert not world.success


@pytest.mark.parametrize("name", ["A", "B"])
def test_expert_succeeds(name):
    world = KochWorld(name)
    outcomes = {seed: run_expert(world, seed) for seed in range(10_000, 10_030)}
    assert [seed for seed, success in outcomes.items() if not success] == []


def test_demonstrations_are_disturbed_but_labelled_clean(world):
    attempt = successful_attempt(world, 0, noise=0.03)
    assert world.success
    noisy = np.array(list(demonstrate(world, 0, noise=0.03, attempt=attempt)))
    start = world.frame
    clean = np.array(list(demonstrate(world, 0, noise=0.0, attempt=attempt)))
    length = min(start, len(clean), 40)
    np.testing.assert_array_equal(noisy[:length], clean[:length])
    assert np.abs(np.diff(clean, axis=0)).max() < 15


def test_demonstrations_differ_in_tempo(world):
    lengths = {len(list(demonstrate(world, 0, noise=0.0, attempt=attempt))) for attempt in range(3)}
    assert len(lengths) > 1


@pytest.mark.parametrize("camera", ["laptop", "phone"])
def test_the_cube_is_seen_in_its_colour(camera):
    world = KochWorld("A", width=128, height=96)
    world.reset(0, cube_pose=(0.13, 0.0, 0.0))
    picture = world.render(camera).astype(float)
    world.close()
    colour = np.array(scene.COLOURS[world.layout.colours[0]])
    shade = picture / np.maximum(np.linalg.norm(picture, axis=-1, keepdims=True), 1)
    assert ((shade @ (colour / np.linalg.norm(colour))) > 0.99).sum() > 20


@pytest.mark.parametrize("units", ["legacy", "deg_percent", "normalized"])
def test_units_round_trip(units):
    for angles in (JOINT_LOW, REST_POSE, JOINT_HIGH):
        np.testing.assert_allclose(to_degrees(from_degrees(angles, units), units), angles)


def test_percent_gripper_is_full_at_ninety_degrees():
    assert from_degrees((0, 0, 0, 0, 0, 90), "deg_percent")[5] == pytest.approx(100)
    np.testing.assert_allclose(from_degrees(JOINT_LOW, "normalized")[:5], -100)


GL_PROBE = """
import sys
from lerobot.common.envs.koch_sim.gl import select_gl
print(select_gl(), "mujoco" in sys.modules)
"""


@pytest.mark.parametrize("wish", ["osmesa", "disable"])
def test_a_chosen_gl_backend_is_respected(wish):
    probe = subprocess.run(
        [sys.executable, "-c", GL_PROBE],
        env={"MUJOCO_GL": wish, "PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        timeout=300,
    )
    assert probe.stdout.decode().split() == [wish, "False"]


def test_a_backend_chosen_too_late_is_told_and_does_not_crash():
    code = """
import mujoco
from lerobot.common.envs.koch_sim.world import KochWorld
world = KochWorld()
world.reset(0)
try:
    world.render("laptop")
except RuntimeError as error:
    print("MUJOCO_GL" in str(error))
"""
    probe = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONPATH": ":".join(sys.path)}, capture_output=True, timeout=300
    )
    assert probe.stdout.decode().strip() == "True", probe.stderr.decode()


def test_physics_runs_and_pictures_say_what_is_missing_without_gl():
    code = """
from lerobot.common.envs.koch_sim.world import KochWorld
world = KochWorld()
world.reset(0)
world.step((0, 134, 180, -19, 0, 35))
try:
    world.render("laptop")
except RuntimeError as error:
    print("libosmesa6" in str(error))
"""
    probe = subprocess.run(
        [sys.executable, "-c", code],
        env={"MUJOCO_GL": "disable", "PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        timeout=300,
    )
    assert probe.stdout.decode().strip() == "True", probe.stderr.decode()


def test_a_gl_library_that_does_not_exist_is_one_message():
    code = """
from lerobot.common.envs.koch_sim.gl import import_mujoco
try:
    import_mujoco()
except ValueError as error:
    print(error)
"""
    probe = subprocess.run(
        [sys.executable, "-c", code],
        env={"MUJOCO_GL": "nonsense", "PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        timeout=300,
    )
    assert "MUJOCO_GL=nonsense" in probe.stdout.decode() and "Expected egl" in probe.stdout.decode()


def test_a_screen_that_was_asked_for_and_is_not_there_is_one_message(monkeypatch):
    context = type("GLContext", (), {"__module__": "mujoco.glfw"})
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("MUJOCO_GL", "glfw")
    with pytest.raises(ValueError, match="MUJOCO_GL=glfw draws on a screen"):
        check_gl(SimpleNamespace(GLContext=context))
    monkeypatch.setenv("DISPLAY", ":0")
    check_gl(SimpleNamespace(GLContext=context))


def test_the_environment_takes_what_its_description_says():
    gymnasium = pytest.importorskip("gymnasium")
    pytest.importorskip("gym_koch")
    env = gymnasium.make("gym_koch/KochPickPlaceState-v0", control_mode="absolute", shadows=False)
    _, first = env.reset(seed=3)
    _, again = env.reset(seed=4, options={"cube_pose": first["cube_pose"]})
    np.testing.assert_allclose(again["cube_pose"][:3], first["cube_pose"][:3], atol=1e-9)
    mass = env.unwrapped.world.model.body_mass.copy()
    env.reset(seed=3, options={"randomization": "full"})
    assert (env.unwrapped.world.model.body_mass != mass).any()
    _, plain = env.reset(seed=3, options={"randomization": "none"})
    np.testing.assert_array_equal(env.unwrapped.world.model.body_mass, mass)
    assert plain["joint_limit_hits"] == plain["self_collisions"] == 0
    for _ in range(20):
        info = env.step(env.action_space.high)[-1]
    assert info["joint_limit_hits"] > 0
    with pytest.raises(ValueError, match="cube_pose"):
        env.reset(options={"cube_pose": [0.1, 0.2]})
    with pytest.raises(ValueError, match="control_mode"):
        gymnasium.make("gym_koch/KochPickPlaceState-v0", control_mode="delta")
    env.close()
