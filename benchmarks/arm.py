"""The arm's numbers: envelope, bus under faults, expert through the bus, late ticks, landing after kill -9, loop rate.

python benchmarks/arm.py envelope|bus|expert|late|kills|loop [--count=N]
python benchmarks/arm.py kills|loop --policy[=CHECKPOINT]   # a policy moves the arm; by default an untrained small ACT
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from lerobot.common.evaluation.intervals import wilson_interval
from lerobot.common.robot_devices.control_utils import PolicyRunner, control_loop
from lerobot.common.robot_devices.pace import Pace
from lerobot.common.robot_devices.robots.configs import FOLLOWER_MODELS, JOINTS, koch_bus
from lerobot.common.robot_devices.robots.utils import make_robot
from lerobot.common.robot_devices.safety import EnvelopeConfig, JointLimits, SafetyEnvelope
from lerobot.common.robot_devices.simulation.twin_process import TwinProcess

MOST_GIVEN_UP = 100
REPORT = 100_000  # transactions between two lines
LATE_S, SELDOM = 25.0, 0.05
EPISODE_S = 15.0  # 450 frames
KILL_CAMERAS = {n: {"type": "sim", "name": n, "width": 160, "height": 120} for n in ("laptop", "phone")}
STATED_S = EnvelopeConfig().landing_s + 2.0  # landing and what the supervisor needs around it


def envelope(count: int) -> None:
    """Time of one tick of the safety envelope for six joints, random targets (worst case: all intervene)."""
    limits = JointLimits.of_arm(JOINTS, [-100.0] * 6, [100.0] * 6, EnvelopeConfig())
    made = SafetyEnvelope(limits, 1 / 30)
    made.engage([0.0] * 6)
    targets = np.random.default_rng(0).uniform(-150, 150, (count, 6))
    times = []
    for target in targets:
        start = time.perf_counter()
        made.limit(target, 0.0)
        times.append(time.perf_counter() - start)
    times = np.array(times) * 1e6
    print(f"envelope: median {np.median(times):.1f} us, p99 {np.percentile(times, 99):.1f} us over {count} ticks")


def bus(count: int) -> None:
    """Transactions of a policy-like loop with 1 % disturbed; every value read is compared with the truth."""
    from lerobot.common.robot_devices.motors.dynamixel import DynamixelMotorsBus

    # Seven packets make a transaction of six motors.
    rate = 0.01 / 7 / 4
    faults = {"lost": rate, "late": rate, "corrupt": rate, "duplicate": rate, "seed": 1}
    twin = TwinProcess(time="lockstep", leader="hold", faults=faults)
    arm = DynamixelMotorsBus(koch_bus(twin.ports[0], FOLLOWER_MODELS))
    arm.connect()
    arm.write("Operating_Mode", 4)
    truth = arm.read("Present_Position")
    limits = JointLimits.of_arm(JOINTS, truth - 900.0, truth + 900.0, EnvelopeConfig(max_speed=3000))
    safe = SafetyEnvelope(limits, 1 / 30)
    safe.engage(truth)
    rng, wrong, outside, given_up, start = np.random.default_rng(0), 0, 0, 0, time.monotonic()
    sent = [arm.read("Goal_Position")]
    while (done := arm.counters.transactions + len(sent)) < count:
        goal = safe.limit(rng.uniform(-5000, 5000, 6)).astype(np.int32)
        arm.write("Goal_Position", goal)
        sent.append(goal)
        try:
            present, kept = arm.read("Present_Position"), arm.read("Goal_Position")
        except ConnectionError:  # ten tries take 0.4 s, for which a simulator on a busy machine may get no time
            given_up += 1
            if given_up > MOST_GIVEN_UP:
                raise
            continue
        wrong += int((present != truth).any())
        # A sync write has no answer: a lost one leaves the goal before it, or an older one after several losses.
        wrong += not any((kept == old).all() for old in sent[-6:])
        outside += int((np.abs(kept - truth) > 901).any())
        if done // REPORT > (done - 3) // REPORT:
            print(f"  {done}: wrong values {wrong}, goals outside the envelope {outside}", flush=True)
    counters, seconds = arm.counters, time.monotonic() - start
    injected = twin.ask("state")["faults"]
    arm.disconnect()
    twin.close()
    print(f"bus: {done} transactions in {seconds:.0f} s, injected {injected}")
    print(f"  wrong values {wrong}, goals outside the envelope {outside}, {counters.to_dict()}")
    print(f"  reads given up {given_up}, load {os.getloadavg()[0]:.1f}")


def expert(count: int) -> None:
    """Success of the expert through leader bus, envelope and follower bus."""
    robot = make_robot("koch_sim", time="lockstep", cameras={}, supervise=False)
    robot.connect()
    successes = 0
    for seed in range(count):
        robot.reset_scene(seed)
        control_loop(robot, EPISODE_S, teleoperate=True, fps=30, stop_when=lambda: robot.success)
        successes += robot.success
    interventions = robot.envelopes["main"].interventions()
    robot.disconnect(land=False)
    low, high = wilson_interval(successes, count)
    print(f"expert through the bus: {successes}/{count} ({100 * low:.1f}-{100 * high:.1f} %), envelope {interventions}")


def late(count: int) -> None:
    """Servos that shut down from overload, when the ticks of the loop come late in the twin's time: per kind of delay.

    Up to 12 frames a tick; up to 4, and every twentieth 15; the same with 30. The operator goes on meanwhile.
    """
    for name, most, seldom in (("up to 12 frames", 12, 1), ("1 to 4, seldom 15", 4, 15), ("1 to 4, seldom 30", 4, 30)):
        logging.disable(logging.WARNING)
        ends = [_late_once(seed, most, seldom) for seed in range(count)]
        print(f"late ticks, {name}: {ends.count('overload')} of {count} shut down, {ends.count('success')} succeeded")


def _late_once(seed: int, most: int, seldom: int) -> str:
    robot, rng = (
        make_robot("koch_sim", time="lockstep", cameras={}, supervise=False, overload=True),
        random.Random(seed),
    )
    robot.connect()
    try:
        robot.reset_scene(seed)
        robot.set_rate(30)
        robot.resume()
        while robot.clock.now() < LATE_S:
            robot.teleop_step()
            robot.clock.wait((seldom if rng.random() < SELDOM else rng.randint(1, most)) / 30)
            if robot.success:
                return "success"
        return "time"
    except ConnectionError:
        return "overload"
    finally:
        robot.disconnect(land=False)


def loop(count: int, policy: str | None = None) -> None:
    """Period of the real-time control loop with two 640x480 cameras, recording, over that many seconds."""
    from lerobot.common.datasets.lerobot_dataset import LeRobotDataset

    robot = make_robot("koch_sim", leader="hold")
    robot.connect()
    with tempfile.TemporaryDirectory() as folder:
        runner = _runner(policy, Path(folder)) if policy is not None else None
        features = {**robot.motor_features, **{k: {**f, "dtype": "video"} for k, f in robot.camera_features.items()}}
        features = {key: {k: v for k, v in f.items() if k != "info"} for key, f in features.items()}
        dataset = LeRobotDataset.create("me/loop", 30, root=Path(folder) / "loop", features=features)
        pace, options = Pace(30), {"dataset": dataset, "fps": 30, "single_task": "x"}
        control_loop(robot, 1.0, runner is None, policy=runner, fps=30, single_task="x")  # the first plan is slow
        if runner is not None:
            runner.reset()
        before = np.array([time.thread_time(), time.process_time(), _cpu_seconds(robot.twin.process.pid)])
        control_loop(robot, count, runner is None, policy=runner, pace=pace, **options)
        spent = np.array([time.thread_time(), time.process_time(), _cpu_seconds(robot.twin.process.pid)]) - before
        dataset.clear_episode_buffer()
    print(f"loop: {pace.summary()}, load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    thread, program, simulator = 1000 * spent / pace.summary()["ticks"]
    print(f"  CPU a tick: loop {thread:.1f} ms, whole program {program:.1f} ms, simulator {simulator:.1f} ms (of 33.3)")
    if runner is not None:
        print(f"  one tick that plans: {runner.budget.line()}")
    robot.disconnect()


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _runner(policy: str, folder: Path):
    from lerobot.common.policies.common.fast_inference import use_inference_mode
    from lerobot.common.policies.factory import get_policy_class, make_pre_post_processors
    from lerobot.configs.policies import PreTrainedConfig

    path = policy or small_checkpoint(folder)
    config = PreTrainedConfig.from_pretrained(path)
    model = get_policy_class(config.type).from_pretrained(path, config=config)
    use_inference_mode(model)
    return PolicyRunner(model, *make_pre_post_processors(config, path), "koch_sim")


def small_checkpoint(folder: Path) -> str:
    """An untrained ACT of the size that `koch_train.sh` trains without a GPU; the time of a tick is the same."""
    from lerobot.common.datasets.dataset_metadata import LeRobotDatasetMetadata
    from lerobot.common.policies.factory import make_policy, make_policy_config, make_pre_post_processors

    root = Path(__file__).parents[1]
    meta = LeRobotDatasetMetadata(None, root=root / "grasp_dataset")
    preset = json.loads((root / "lerobot/configs/presets/act_mini.json").read_text())["policy"]
    preset["image_size"] = tuple(preset["image_size"])
    config = make_policy_config(preset.pop("type"), **preset, device="cpu")
    policy = make_policy(config, ds_meta=meta)
    for part in (policy, *make_pre_post_processors(config, dataset_stats=meta.stats)):
        part.save_pretrained(folder / "small")
    return str(folder / "small")


def kills(count: int, policy: str | None = None, seed: int = 0) -> None:
    """Kill -9 a recording at random moments: time until the torque is off, and whether saved episodes are whole."""
    rng, times, lost = random.Random(seed), [], 0
    with tempfile.TemporaryDirectory() as checkpoints:
        path = small_checkpoint(Path(checkpoints)) if policy == "" else policy
        for number in range(count):
            with tempfile.TemporaryDirectory() as folder:
                seconds, saved, whole = _kill_once(Path(folder) / "rec", rng, path)
            times.append(seconds)
            lost += not whole
            text = f"{saved} saved episodes {'whole' if whole else 'LOST'}"
            load = os.getloadavg()[0]
            print(f"  {number + 1}: torque off after {seconds:.2f} s, {text} (load {load:.0f})", flush=True)
    what = "a policy run" if policy is not None else "a recording"
    off = f"torque off after {min(times):.2f} to {max(times):.2f} s (stated {STATED_S} s)"
    print(f"kill -9 of {what}: {count} times, {off}, {lost} lost")
    if lost or max(times) > STATED_S:
        raise SystemExit(1)


def _kill_once(root: Path, rng: random.Random, policy: str | None) -> tuple[float, int, bool]:
    """(seconds until the torque was off, episodes that were reported as saved, whether they are all there)."""
    name = "k" if policy is None else "eval_k"
    flags = f"--robot.type=koch_sim --control.type=record --control.repo_id=me/{name} --control.single_task=x"
    flags += " --control.warmup_time_s=0 --control.push_to_hub=false --control.episode_time_s=1.5"
    command = [sys.executable, "lerobot/scripts/control_robot.py", *flags.split(), f"--control.root={root}"]
    command += [f"--robot.cameras={json.dumps(KILL_CAMERAS)}"]
    command += [f"--control.policy.path={policy}"] if policy is not None else []
    output = root.parent / "output.txt"  # the supervisor inherits it
    with open(output, "wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT)
    _wait_for("Recording episode 0", output, 300.0)
    time.sleep(rng.uniform(0.0, 6.0))
    reports = root.parent / f"{root.name}.control_report.jsonl"
    saved = len(reports.read_text().splitlines()) if reports.exists() else 0
    start = time.time()
    os.kill(process.pid, signal.SIGKILL)
    process.wait(60.0)
    _wait_for("Torque is off", output, 60.0)
    landed = output.stat().st_mtime - start  # when the supervisor wrote it, not when this process was given time to see
    return landed, saved, not saved or _whole(root, saved)


def _wait_for(text: str, output: Path, limit_s: float) -> None:
    end = time.monotonic() + limit_s
    while text not in output.read_text(errors="replace"):
        if time.monotonic() > end:
            raise RuntimeError(f"no '{text}' within {limit_s:.0f} s: {output.read_text(errors='replace')[-2000:]}")
        time.sleep(0.01)


def _whole(root: Path, saved: int) -> bool:
    """Whether the saved episodes are there, every frame with its numbers and pictures."""
    from lerobot.common.datasets.lerobot_dataset import LeRobotDataset

    dataset = LeRobotDataset("me/k", root=root)
    last = dataset[dataset.num_frames - 1]
    return dataset.num_episodes >= saved and bool(last["action"].isfinite().all())


COMMANDS = {"envelope": (envelope, 100_000), "bus": (bus, 100_000), "expert": (expert, 200)}
COMMANDS |= {"late": (late, 40)}
COMMANDS |= {"kills": (kills, 20), "loop": (loop, 20)}
WITH_POLICY = (kills, loop)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=COMMANDS)
    parser.add_argument("--count", type=int)
    parser.add_argument("--policy", nargs="?", const="", help="checkpoint that moves the arm (kills, loop)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (kills)")
    args = parser.parse_args()
    command, default = COMMANDS[args.what]
    if args.policy is not None and command not in WITH_POLICY:
        parser.error(f"--policy goes with kills and loop, not with {args.what}")
    words = {"policy": args.policy} if command in WITH_POLICY else {}
    words |= {"seed": args.seed} if command is kills else {}
    command(args.count or default, **words)


if __name__ == "__main__":
    main()
