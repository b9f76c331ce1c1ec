#!/usr/bin/env python
"""One table for seven policies: same recordings, same training time, same evaluation episodes, on scenes A and B.

    python benchmarks/leaderboard.py                              # CPU: at most 25 minutes each
    python benchmarks/leaderboard.py --device cuda --minutes 30   # larger sizes; minutes of the clock
    python benchmarks/leaderboard.py --policies act,smolvla --scenes A --publish README.md README.zh-CN.md

Per policy and scene: the seconds of a step are measured, and the steps chosen: the preset's own, or as many as the
budget allows (and the schedule with them). Then it is trained, evaluated in the simulated arm on seeds that no
recording uses, and given a report card. Everything lands in --output_dir; what is finished there is not done again,
so the same command goes on after a stop, and --table prints what there is so far. --publish adds the rows to those of
leaderboard.json beside this file, and writes the table of all of them.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import torch

from lerobot.common.constants import CHECKPOINTS_DIR, LAST_CHECKPOINT_LINK, PRETRAINED_MODEL_DIR
from lerobot.common.envs.koch_sim.arm import REST_POSE
from lerobot.common.envs.koch_sim.expert import KochExpert
from lerobot.common.envs.koch_sim.world import KochWorld
from lerobot.common.evaluation.intervals import wilson_interval
from lerobot.common.training.metrics import read_lines
from lerobot.common.training.record import git_state
from lerobot.common.utils.io_utils import read_json, write_json, write_text
from lerobot.configs.eval import KOCH_SEED

ROOT = Path(__file__).parents[1]
SCRIPTS = ROOT / "lerobot" / "scripts"
POLICIES = ("act", "act_dinov2", "diffusion", "tdmpc", "vqbet", "pi0", "smolvla")
TASKS = {"A": "KochPickPlace-v0", "B": "KochPickPlaceColor-v0"}
PRESETS = {("smolvla", "B"): "smolvla_mini_words"}  # of the others: <policy>_mini
# What a preset starts from: a script that makes it; its time counts as training.
HEAD_STARTS = {"smolvla_mini_words": "pretrain_vlm.py"}
SHORT, LONG = 20, 120  # steps of the two runs whose difference is the price of a step
EPISODE_STEPS = 450
LIMIT_S = 6 * 3600  # of one command, by the clock
MARKS = ("<!-- leaderboard -->", "<!-- end of leaderboard -->")
PUBLISHED = Path(__file__).with_suffix(".json")  # {"CPU" or "GPU": rows}

# Which flags follow the number of steps; VQ-BeT's schedule does so by itself.
SCHEDULE = {
    **dict.fromkeys(("act", "act_dinov2", "diffusion", "tdmpc"), "scheduler.num_decay_steps"),
    **dict.fromkeys(("smolvla", "pi0"), "policy.scheduler_decay_steps"),
}
# VQ-BeT's first phase costs almost nothing, so the second one is measured.
MEASURED = {"vqbet": ["--policy.n_vqvae_training_steps=5"]}
# What a GPU can carry beside the presets' own settings: larger pictures, wider nets, larger batches.
LARGER = {
    "act": ["policy.image_size=[240,320]", "policy.backbone_width=64", "policy.dim_model=512", "policy.n_heads=8"],
    "act_dinov2": ["policy.dim_model=512", "policy.n_heads=8", "policy.dim_feedforward=2048"],
    "diffusion": ["policy.image_size=[240,320]", "policy.backbone_width=64", "policy.down_dims=[256,512,1024]"],
    "tdmpc": ["policy.mlp_dim=512", "policy.image_encoder_hidden_dim=32", "batch_size=256"],
    "vqbet": ["policy.image_size=[240,320]", "policy.backbone_width=64", "policy.gpt_hidden_dim=512"],
    "pi0": ["policy.draws_per_sample=4", "batch_size=64"],
    "smolvla": ["policy.draws_per_sample=4", "batch_size=64"],
}

EXPERT, STILL = "expert, knows where the cube is", "holds still"
WORDS = {
    "en": {
        "policy": "policy",
        "success": "success, scene {} (95 %)",
        "parameters": "parameters",
        "training": "training, {} min",
        "steps": "steps",
        "latency": "time of a chunk",
        "memory": "memory",
        "not run": "not run",
        "lacking": "{} on scene {}",
        "missing": "Not run: {}.",
        "cpu": "{}, threads: {}",
        "other machine": "{}: {}",
        "preset steps": "or the preset's own steps where these take less",
        "filled": "with the schedule stretched to them",
        "source": "{machine}, torch {torch}, commit {commits}. At most {minutes:g} minutes of training per policy and "
        "scene, {steps}; {episodes} episodes from seed {seed} on; `python benchmarks/leaderboard.py`.",
    },
    "zh": {
        "policy": "策略",
        "success": "成功率，场景 {}（95 %）",
        "parameters": "参数量",
        "training": "训练，{} 分钟",
        "steps": "步数",
        "latency": "一个动作块的用时",
        "memory": "内存",
        EXPERT: "脚本专家，知道方块的位置",
        STILL: "静止不动",
        "not run": "未运行",
        "lacking": "场景 {1} 上的 {0}",
        "missing": "未运行：{}。",
        "cpu": "{}，线程数 {}",
        "other machine": "{}：{}",
        "preset steps": "预设的步数用时更短时按预设",
        "filled": "学习率计划随之拉长",
        "source": "{machine}，torch {torch}，提交 {commits}。每个策略、每个场景最多训练 {minutes:g} 分钟，{steps}；"
        "从种子 {seed} 起的 {episodes} 个片段；`python benchmarks/leaderboard.py`。",
    },
}


def run(command: list, log: Path) -> dict[str, float]:
    """Run a script and return its processor seconds, wall seconds and peak memory (GB); its output goes to `log`.

    Raises RuntimeError with the end of the log if it fails or takes longer than LIMIT_S.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    with log.open("a") as out:
        process = subprocess.Popen(list(map(str, command)), stdout=out, stderr=subprocess.STDOUT, cwd=ROOT)
        watch = threading.Timer(LIMIT_S, process.kill)
        watch.start()
        try:
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = status
        except KeyboardInterrupt:
            process.terminate()
            process.wait(timeout=60)
            raise
        finally:
            watch.cancel()
    if status:
        tail = "\n".join(log.read_text().splitlines()[-12:])
        raise RuntimeError(f"{' '.join(map(str, command[:2]))} failed ({log}):\n{tail}")
    kilobytes = usage.ru_maxrss / (1024 if sys.platform == "darwin" else 1)
    seconds = usage.ru_utime + usage.ru_stime
    return {"cpu_s": seconds, "wall_s": time.perf_counter() - start, "memory_gb": kilobytes / 2**20}


def preset_of(policy: str, scene: str) -> str:
    """The name of the preset that a policy trains with."""
    return PRESETS.get((policy, scene), f"{policy}_mini")


def head_start(policy: str, scene: str, folder: Path, args) -> tuple[Path | None, dict[str, float]]:
    """(what training starts from, its cost): made on first use; (None, nothing) for random weights."""
    script, output, cost_file = HEAD_STARTS.get(preset_of(policy, scene)), folder / "start", folder / "start_cost.json"
    if script is None:
        return None, {"cpu_s": 0.0, "wall_s": 0.0, "memory_gb": 0.0}
    if not cost_file.is_file():
        shutil.rmtree(output, ignore_errors=True)
        command = [sys.executable, SCRIPTS / script, f"--output_dir={output}", f"--seed={args.seed}"]
        write_json(run(command, folder / "start.log"), cost_file)
    return output, read_json(cost_file)


def train_command(policy: str, scene: str, dataset: Path, output: Path, args, start: Path | None = None) -> list:
    """The command that trains a preset, from the weights `start` or random ones, without its steps."""
    flags = [f"--preset={preset_of(policy, scene)}", f"--dataset.root={dataset}", f"--output_dir={output}"]
    flags += [f"--seed={args.seed}", "--eval_freq=0", "--progress=false", f"--policy.device={args.device}"]
    flags += [f"--policy.path={start}"] if start else []
    larger = LARGER[policy] if args.device.startswith("cuda") else []
    return [sys.executable, SCRIPTS / "train.py", *flags, *(f"--{flag}" for flag in larger)]


def schedule(policy: str, steps: int) -> list[str]:
    """Flags that make a run, and its learning-rate schedule, `steps` long."""
    return [f"--steps={steps}", *([f"--{SCHEDULE[policy]}={steps}"] if policy in SCHEDULE else [])]


def choose_steps(policy: str, scene: str, dataset: Path, folder: Path, args) -> dict[str, float]:
    """{"steps", "step_s"}: the preset's own steps if they fit the budget, else (or with --fill) as many as fill it.

    The price of a step is the difference of a long and a short run, after one that decodes the pictures of a new
    dataset; what a head start took is no longer there.
    """
    plan = folder / "plan.json"
    if plan.is_file():
        return read_json(plan)
    kind, spent = "wall_s" if args.device.startswith("cuda") else "cpu_s", []
    start, start_cost = head_start(policy, scene, folder, args)
    for count in (1, SHORT, LONG):
        output = folder / f"measure_{count}"
        shutil.rmtree(output, ignore_errors=True)
        command = train_command(policy, scene, dataset, output, args, start) + schedule(policy, count)
        command += MEASURED.get(policy, [])
        command += ["--save_checkpoint=false", "--log_freq=10"]
        spent.append(run(command, folder / "measure.log")[kind])
    step_s = max((spent[2] - spent[1]) / (LONG - SHORT), 1e-4)
    preset = read_json(ROOT / f"lerobot/configs/presets/{preset_of(policy, scene)}.json")
    free = preset["policy"].get("n_vqvae_training_steps", 0)
    steps = free + max(100, round((60 * args.minutes - start_cost[kind]) / step_s / 100) * 100)
    if not args.fill:
        steps = min(steps, preset["steps"])
    write_json({"steps": steps, "step_s": step_s}, plan)
    return read_json(plan)


def train(policy: str, scene: str, dataset: Path, folder: Path, args) -> tuple[Path, dict]:
    """Train, or go on training; returns the checkpoint and what all its parts cost together."""
    plan, output, cost_file = choose_steps(policy, scene, dataset, folder, args), folder / "run", folder / "cost.json"
    start, cost = head_start(policy, scene, folder, args)
    cost = read_json(cost_file) if cost_file.is_file() else cost
    rows = read_lines(output / "metrics.jsonl")
    checkpoint = output / CHECKPOINTS_DIR / LAST_CHECKPOINT_LINK / PRETRAINED_MODEL_DIR
    if rows and rows[-1]["step"] >= plan["steps"] and checkpoint.is_dir():
        return checkpoint, cost | plan
    if checkpoint.is_dir():
        command = [sys.executable, SCRIPTS / "train.py", "--resume=true", f"--output_dir={output}"]
    else:
        if output.exists():  # stopped before its first checkpoint
            shutil.rmtree(output)
        command = train_command(policy, scene, dataset, output, args, start) + schedule(policy, plan["steps"])
        command.append(f"--save_freq={max(1, plan['steps'] // 4)}")
    spent = run(command, folder / "train.log")
    cost = {key: max(cost[key], spent[key]) if key == "memory_gb" else cost[key] + spent[key] for key in spent}
    write_json(cost, cost_file)
    return checkpoint, cost | plan


def measure(policy: str, scene: str, dataset: Path, folder: Path, args) -> dict:
    """One row of the table: train, evaluate, report card."""
    result_file = folder / "result.json"
    if result_file.is_file():
        return read_json(result_file)
    checkpoint, cost = train(policy, scene, dataset, folder, args)
    given = [f"--policy.path={checkpoint}", f"--policy.device={args.device}"]
    evaluation = [sys.executable, SCRIPTS / "eval.py", *given, "--env.type=koch", f"--env.task={TASKS[scene]}"]
    evaluation += [f"--eval.n_episodes={args.episodes}", "--eval.use_async_envs=true"]
    evaluation += [f"--eval.batch_size={args.workers}"]
    run([*evaluation, f"--output_dir={folder / 'eval'}"], folder / "eval.log")
    report = [sys.executable, SCRIPTS / "report.py", *given, f"--dataset.root={dataset}", "--chunks=40"]
    run([*report, f"--output_dir={folder / 'report'}"], folder / "report.log")
    total = read_json(folder / "eval" / "eval_info.json")["aggregated"]
    (card,) = read_json(folder / "report" / "report.json").values()
    row = {
        "policy": policy,
        "scene": scene,
        **{key: total[key] for key in ("n_success", "n_episodes", "avg_sum_reward", "steps_per_s")},
        **cost,
        "latency_s": card["latency_s"]["median"],
        "parameters": card["parameters"],
        "error": card["open_loop"]["overall"],
        **{"commit": commit(), "torch": torch.__version__, "minutes": args.minutes},
        **{"machine": machine_name(args.device), "threads": torch.get_num_threads()},
    }
    write_json(row, result_file, indent=2)
    return row


# --- references -------------------------------------------------------------------------------------------------------


class HoldStill:
    """Commands the rest pose for ever."""

    def reset(self, world: KochWorld) -> None:
        """Nothing to remember."""

    def act(self, world: KochWorld):
        """Where the arm starts."""
        return REST_POSE


def references(scene: str, args) -> list[dict]:
    """The rows of a scene that need no training; measured once for a number of episodes."""
    file = args.output_dir / f"references_{scene}_{args.episodes}.json"
    if not file.is_file():
        actors = {EXPERT: KochExpert(), STILL: HoldStill()}
        write_json([reference(name, actor, scene, args.episodes) for name, actor in actors.items()], file, indent=2)
    return read_json(file)


def reference(name: str, actor, scene: str, episodes: int) -> dict:
    """The success of something that needs no training, from the physics alone."""
    world, wins = KochWorld(scene), 0
    for seed in range(KOCH_SEED, KOCH_SEED + episodes):
        world.reset(seed)
        actor.reset(world)
        while world.frame < EPISODE_STEPS and not world.success:
            world.step(actor.act(world))
        wins += world.success
    return {"policy": name, "scene": scene, "n_success": wins, "n_episodes": episodes}


# --- the table --------------------------------------------------------------------------------------------------------


def text_of(rows: list[dict], args, language: str = "en") -> str:
    """Markdown in English or Chinese: the table, what is not in it, where it comes from."""
    paragraphs = [table(rows, args, language), missing(rows, args, language), source(rows, args, language)]
    return "\n\n".join(filter(None, paragraphs))


def table(rows: list[dict], args, language: str = "en") -> str:
    """Markdown: a row per policy, the best on the first scene first; those without a result last."""
    words, clock = WORDS[language], "GPU" if args.device.startswith("cuda") else "CPU"
    heads = [words["policy"], *(words["success"].format(scene) for scene in args.scenes), words["parameters"]]
    heads += [words["training"].format(clock), words["steps"], words["latency"], words["memory"]]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for name in _ranked(rows, args):
        found = {row["scene"]: row for row in rows if row["policy"] == name}
        cells = [words.get(name, name), *(_success(found.get(scene), words) for scene in args.scenes)]
        lines.append(f"| {' | '.join([*cells, *_costs(list(found.values()), clock)])} |")
    return "\n".join(lines)


def missing(rows: list[dict], args, language: str = "en") -> str:
    """One sentence about what has no result, or nothing."""
    done = {(row["policy"], row["scene"]) for row in rows}
    lacking = []
    for scene in args.scenes:
        if names := [policy for policy in args.policies if (policy, scene) not in done]:
            lacking.append(WORDS[language]["lacking"].format(", ".join(names), scene))
    return WORDS[language]["missing"].format("; ".join(lacking)) if lacking else ""


def _ranked(rows: list[dict], args) -> list[str]:
    rates = {row["policy"]: row["n_success"] / row["n_episodes"] for row in rows if row["scene"] == args.scenes[0]}
    names = {row["policy"] for row in rows} | set(args.policies)
    return sorted(names, key=lambda name: (-rates.get(name, -1), all(row["policy"] != name for row in rows), name))


def _success(row: dict | None, words: dict[str, str]) -> str:
    if row is None:
        return words["not run"]
    low, high = wilson_interval(row["n_success"], row["n_episodes"])
    rate = row["n_success"] / row["n_episodes"]
    return f"{row['n_success']}/{row['n_episodes']} = {rate:.0%} ({100 * low:.0f}-{100 * high:.0f})"


def _costs(rows: list[dict], clock: str) -> list[str]:
    trained = [row for row in rows if "steps" in row]
    if not trained:
        return [""] * 5
    kind = "wall_s" if clock == "GPU" else "cpu_s"
    return [
        f"{trained[0]['parameters'] / 1e6:.2f} M",
        " / ".join(f"{row[kind] / 60:.0f}" for row in trained),
        " / ".join(str(row["steps"]) for row in trained),
        f"{1e3 * min(row['latency_s'] for row in trained):.0f} ms",
        f"{max(row['memory_gb'] for row in trained):.1f} GB",
    ]


def commit() -> str:
    """The state of the source as one word or three."""
    source = git_state(ROOT)
    return "unknown" if source is None else source["commit"][:12] + (" with changes" if source["changed"] else "")


def machine_name(device: str) -> str:
    """The GPU, or the CPU."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def source(rows: list[dict], args, language: str = "en") -> str:
    """Where and from what the numbers come."""
    words, trained = WORDS[language], [row for row in rows if "commit" in row]
    return words["source"].format(
        machine=_machines(trained, args, words),
        torch=", ".join(dict.fromkeys(row["torch"] for row in trained)) or torch.__version__,
        commits=", ".join(dict.fromkeys(row["commit"] for row in trained)) or commit(),
        minutes=max((row["minutes"] for row in trained), default=args.minutes),
        steps=words["filled" if args.fill else "preset steps"],
        episodes=args.episodes,
        seed=KOCH_SEED,
    )


def _machines(rows: list[dict], args, words: dict[str, str]) -> str:
    """The machine of most rows; in brackets those of the others."""
    by_machine: dict[str, list[dict]] = {}
    for row in rows:
        name = row["machine"]
        name = name if args.device.startswith("cuda") else words["cpu"].format(name, row["threads"])
        by_machine.setdefault(name, []).append(row)
    if not by_machine:
        return machine_name(args.device)
    first, *others = sorted(by_machine, key=lambda name: -len(by_machine[name]))
    notes = []
    for name in others:
        for scene in sorted({row["scene"] for row in by_machine[name]}):
            policies = ", ".join(row["policy"] for row in by_machine[name] if row["scene"] == scene)
            notes.append(words["other machine"].format(words["lacking"].format(policies, scene), name))
    return f"{first} ({'; '.join(notes)})" if notes else first


def add_published(rows: list[dict], args) -> list[dict]:
    """All rows published so far, those of `rows` replaced or added; the file is rewritten."""
    found = read_json(args.published) if args.published.is_file() else {}
    kind = "GPU" if args.device.startswith("cuda") else "CPU"
    together = {(row["policy"], row["scene"]): row for row in [*found.get(kind, []), *rows]}
    order = {name: place for place, name in enumerate((EXPERT, *POLICIES, STILL))}
    found[kind] = sorted(together.values(), key=lambda row: (row["scene"], order[row["policy"]]))
    write_json(found, args.published, indent=2)
    return found[kind]


def publish(text: str, path: Path) -> None:
    """Put the table between the marks of a Markdown file; raises ValueError where there are none."""
    page = path.read_text()
    if not all(mark in page for mark in MARKS):
        raise ValueError(f"'{path}' has no place for the table: it needs the lines {MARKS[0]} and {MARKS[1]}.")
    before, rest = page.split(MARKS[0], 1)
    write_text(f"{before}{MARKS[0]}\n{text}\n{MARKS[1]}{rest.split(MARKS[1], 1)[1]}", path)


def dataset_of(scene: str, args) -> Path:
    """The recordings of a scene; those of scene B are made on first use."""
    if scene == "A":
        return args.dataset_a
    root = args.output_dir / "dataset_B"
    command = [sys.executable, SCRIPTS / "record_twin.py", f"--root={root}", f"--episodes={args.demonstrations}"]
    run([*command, "--scene=B", "--resume"], args.output_dir / "record.log")
    return root


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--policies", default=",".join(POLICIES))
    parser.add_argument("--scenes", default="A,B")
    parser.add_argument("--minutes", type=float, default=25, help="of training at most, per policy and scene")
    parser.add_argument("--fill", action="store_true", help="train that long, not the preset's steps (always on a GPU)")
    parser.add_argument("--device", default="cpu", help="cuda: larger sizes")
    parser.add_argument("--episodes", type=int, default=50, help="of the evaluation")
    parser.add_argument("--workers", type=int, default=0, help="episodes at a time; 0: as many as cores")
    parser.add_argument("--seed", type=int, default=1000)
    parser.add_argument("--dataset_a", type=Path, default=ROOT / "grasp_dataset")
    parser.add_argument("--demonstrations", type=int, default=200, help="of scene B")
    parser.add_argument("--output_dir", type=Path, default=ROOT / "outputs" / "leaderboard")
    parser.add_argument("--table", action="store_true", help="measure nothing: the table of what is finished")
    parser.add_argument("--publish", type=Path, nargs="*", default=[], help="Markdown files with a place for the table")
    parser.add_argument(
        "--published", type=Path, default=PUBLISHED, help="rows of earlier runs, which --publish adds to"
    )
    args = parser.parse_args(arguments)
    args.policies, args.scenes = args.policies.split(","), args.scenes.split(",")
    for given, known in ((args.policies, POLICIES), (args.scenes, TASKS)):
        if unknown := sorted(set(given) - set(known)):
            parser.error(f"{', '.join(unknown)}: expected some of {', '.join(known)}")
    args.fill |= args.device.startswith("cuda")
    args.output_dir, args.dataset_a = args.output_dir.resolve(), args.dataset_a.resolve()
    return args


def main() -> None:
    """Measure what is not yet measured, and write the table after every row."""
    args, rows, failed = parse(), [], []
    for scene in args.scenes:
        rows += references(scene, args)
    for scene in args.scenes:
        dataset = None if args.table else dataset_of(scene, args)
        for policy in args.policies:
            folder = args.output_dir / f"{policy}_{scene}"
            if args.table:
                rows += [read_json(folder / "result.json")] if (folder / "result.json").is_file() else []
                continue
            print(f"{policy}, scene {scene} ...", flush=True)
            try:
                rows.append(measure(policy, scene, dataset, folder, args))
            except RuntimeError as e:
                print(e, file=sys.stderr)
                failed.append(f"{policy} on scene {scene}")
            write_text(text_of(rows, args) + "\n", args.output_dir / "leaderboard.md")
    print(f"\n{text_of(rows, args)}")
    if failed:
        raise SystemExit(f"Failed: {', '.join(failed)}. The same command tries these again.")
    if args.publish:
        rows = add_published(rows, args)
        args.policies, args.scenes = POLICIES, tuple(TASKS)
    for page in args.publish:
        publish(text_of(rows, args, "zh" if ".zh" in page.name else "en"), page)


if __name__ == "__main__":
    main()
