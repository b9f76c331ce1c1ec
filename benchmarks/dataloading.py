#!/usr/bin/env python
"""Samples per second of a training loader: random order, chunks of 50 actions, two cameras, batches of float32.

    python benchmarks/dataloading.py --peer-python=PEER/bin/python     # beside LeRobot 0.4.4, alternating
    python benchmarks/dataloading.py --only=workers --peer-python=...  # two workers only
    python benchmarks/dataloading.py --only=recording --peer-python=...  # add_frame and save_episode
    python benchmarks/dataloading.py --only=memory                     # resident memory over 10 000 samples
    python benchmarks/dataloading.py --only=episodes                   # 10 to 1 000 episodes

`--peer-python` runs the same loader over the same files with the `lerobot` of another environment. With workers, this
package's pass bytes, as in training, and the batch becomes float32 in the main process, within the time measured.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

FPS, CHUNK, BATCH = 30, 50, 8
LIMIT_S = 1800  # of one measurement
DELTAS = {"action": [i / FPS for i in range(CHUNK)]}


def measure(dataset, workers: int, batches: int, collate=None, finish=None) -> tuple[float, float]:
    """Samples per second and per CPU second of this process and the workers, after two batches of warming up.

    `finish`: what each batch goes through before it counts.
    """
    import multiprocessing

    import torch

    def cpu_seconds() -> float:  # of a worker in hundredths; all workers of the measurement are alive until its end
        stats = [Path(f"/proc/{one.pid}/stat").read_text() for one in multiprocessing.active_children()]
        ticks = sum(int(value) for stat in stats for value in stat.rsplit(")", 1)[1].split()[11:13])
        return time.process_time() + ticks / os.sysconf("SC_CLK_TCK")

    torch.manual_seed(0)
    options = {"collate_fn": collate} if collate else {}
    loader = torch.utils.data.DataLoader(dataset, BATCH, shuffle=True, num_workers=workers, drop_last=True, **options)
    count, start, cpu = -2, None, None
    while count < batches:
        for batch in loader:
            if finish is not None:
                batch = finish(batch)
            assert all(v.dtype == torch.float32 for k, v in batch.items() if k.startswith("observation.images."))
            count += 1
            if count == 0:
                start, cpu = time.perf_counter(), cpu_seconds()
            if count >= batches:
                drawn = batches * BATCH
                return drawn / (time.perf_counter() - start), drawn / (cpu_seconds() - cpu)


def run_one(args) -> dict:
    """One measurement in this process, with whichever `lerobot` it imports."""
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    import lerobot

    options = {"root": args.root, "delta_timestamps": DELTAS, "video_backend": args.backend}
    if options["video_backend"] == "store":
        options["video_backend"] = "pyav"
    dataset = LeRobotDataset("bench/grasps", **options)
    collate = getattr(LeRobotDataset, "collate", None)
    if args.backend == "store":
        from lerobot.common.datasets.frame_store import FrameStore

        dataset.use_frame_store(FrameStore.open_or_fill(dataset, (args.height, args.width), Path(args.root) / ".store"))
    finish = None
    if collate is not None and args.workers:
        from lerobot.common.processor.images import images_to_float

        dataset.return_uint8, finish = True, images_to_float
    rate, cpu_rate = measure(dataset, args.workers, args.batches, collate, finish)
    return {"rate": round(rate, 1), "cpu_rate": round(cpu_rate, 1), "package": lerobot.__file__}


def record_one(args) -> dict:
    """Frames per second of recording two episodes, with whichever `lerobot` this process imports."""
    import numpy as np
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    import lerobot

    cameras = [f"observation.images.{name}" for name in ("laptop", "phone")]
    numbers = {"dtype": "float32", "shape": (6,), "names": None}
    video = {"dtype": "video", "shape": (args.height, args.width, 3), "names": ["height", "width", "channels"]}
    features = {"observation.state": numbers, "action": numbers, **dict.fromkeys(cameras, video)}
    options = {"streaming_encoding": True} if args.backend == "streaming" else {}
    dataset = LeRobotDataset.create(
        "bench/speed", FPS, features=features, root=Path(args.root) / "recorded", vcodec="h264", **options
    )
    pictures = [_picture(np, i, args.height, args.width) for i in range(20)]
    state = np.zeros(6, np.float32)
    start, cpu = time.perf_counter(), _cpu_seconds()
    for _ in range(2):
        for i in range(args.frames):
            shown = {key: pictures[(i + c) % len(pictures)] for c, key in enumerate(cameras)}
            dataset.add_frame({"observation.state": state, "action": state, "task": "Grasp.", **shown})
        dataset.save_episode()
    dataset.finalize()
    frames = 2 * args.frames
    rates = frames / (time.perf_counter() - start), frames / (_cpu_seconds() - cpu)
    return {"rate": round(rates[0], 1), "cpu_rate": round(rates[1], 1), "package": lerobot.__file__}


def _cpu_seconds() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def _picture(np, number: int, height: int, width: int):
    """A textured background with a block that moves, and a little noise."""
    y, x = np.mgrid[0:height, 0:width]
    picture = np.stack([(x * 40) % 200, (y * 2) % 180, (x + y) % 160], -1).astype(np.int16)
    picture[height // 3 : height // 2, 10 * number : 10 * number + width // 8] = (220, 40, 50)
    noise = np.random.default_rng(number).integers(-3, 4, (height // 2, width // 2, 1)).repeat(2, 0).repeat(2, 1)
    return np.clip(picture + noise, 0, 255).astype(np.uint8)


def record(root: Path, episodes: int, frames: int, height: int, width: int, version: str = "v3.0") -> None:
    """A synthetic dataset, h264: a textured background, moving blocks, a little noise."""
    import numpy as np

    from lerobot.common.datasets.lerobot_dataset import LeRobotDataset

    cameras = [f"observation.images.{name}" for name in ("laptop", "phone")]
    numbers = {"dtype": "float32", "shape": (6,), "names": None}
    video = {"dtype": "video", "shape": (height, width, 3), "names": ["height", "width", "channels"]}
    features = {"observation.state": numbers, "action": numbers, **dict.fromkeys(cameras, video)}
    dataset = LeRobotDataset.create("bench/grasps", FPS, root=root, features=features, codebase_version=version)
    random = np.random.default_rng(0)
    y, x = np.mgrid[0:height, 0:width]
    backgrounds = [np.stack([(x + c * 40) % 200, (y * 2) % 180, (x + y) % 160], -1).astype(np.int16) for c in (0, 1)]
    for episode in range(episodes):
        for frame in range(frames):
            state = np.sin((frame + 10 * episode) / 20 + np.arange(6)).astype(np.float32)
            pictures = {}
            for key, background in zip(cameras, backgrounds, strict=True):
                picture = background.copy()
                top, left = (int((0.5 + 0.35 * v) * size) for v, size in zip(state[:2], (height, width), strict=True))
                picture[top - 20 : top + 20, left - 20 : left + 20] = (220, 40, 50)
                noise = random.integers(-3, 4, (height // 2, width // 2, 1)).repeat(2, 0).repeat(2, 1)
                pictures[key] = np.clip(picture + noise, 0, 255).astype(np.uint8)
            dataset.add_frame({"observation.state": state, "action": state, "task": "Grasp the block.", **pictures})
        dataset.save_episode()


def spawn(args, root: Path, backend: str, workers: int, peer: bool) -> dict | None:
    """`run_one` in a fresh process; None where the backend is not installed."""
    repo = Path(__file__).resolve().parents[1]
    python = args.peer_python if peer else (args.python or sys.executable)
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"HF_HUB_OFFLINE": "1"}
    if not peer:
        environment["PYTHONPATH"] = str(repo)
    flags = [f"--root={root}", f"--backend={backend}", f"--workers={workers}", f"--batches={args.batches}"]
    flags += [f"--height={args.height}", f"--width={args.width}"]
    flags += [f"--frames={args.frames}", f"--only={'recording' if args.only == 'recording' else 'compare'}"]
    command = [python, str(Path(__file__).resolve()), "--one", *flags]
    run = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=root, timeout=LIMIT_S)
    if run.returncode:
        print(f"  {'peer' if peer else 'this'} {backend} {workers}: {run.stderr.strip().splitlines()[-1][:200]}")
        return None
    result = json.loads(run.stdout.strip().splitlines()[-1])
    cpu = f", {result['cpu_rate']} per CPU second"
    name, what = "LeRobot 0.4.4" if peer else "this", "frames" if args.only == "recording" else "samples"
    print(f"{name:14} {backend:10} {workers} workers: {result['rate']:7.1f} {what}/s{cpu}", flush=True)
    return result


def compare(args, root: Path) -> None:
    """Alternating short runs, medians and ratios."""
    ours, theirs = ["pyav", "torchcodec", "store"], ["pyav", "torchcodec"]
    table: dict[tuple, list[dict]] = {}
    for _ in range(args.repeat):
        for workers in args.compare_workers:
            for peer, backends in ((False, ours), (True, theirs if args.peer_python else [])):
                for backend in backends:
                    if (result := spawn(args, root, backend, workers, peer)) is not None:
                        table.setdefault((peer, backend, workers), []).append(result)
    for (peer, backend, workers), results in sorted(table.items()):
        for other in () if peer else theirs:
            if (against := table.get((True, other, workers))) is not None:
                ratios = [
                    statistics.median(r[name] for r in results) / statistics.median(r[name] for r in against)
                    for name in ("rate", "cpu_rate")
                ]
                print(
                    f"{backend} / LeRobot's {other}, {workers} workers: "
                    f"{ratios[0]:.1f} ({ratios[1]:.1f} per CPU second)"
                )


def recording(args, folder: Path) -> None:
    """Alternating recordings by this package, LeRobot's default and its streaming encoder; medians and ratios."""
    runs: dict[tuple, list[dict]] = {}
    for turn in range(args.repeat):
        for peer, backend in ((False, "default"), (True, "default"), (True, "streaming"))[
            : 3 if args.peer_python else 1
        ]:
            place = folder / f"{turn}_{peer}_{backend}"
            place.mkdir()
            if (result := spawn(args, place, backend, 0, peer)) is not None:
                runs.setdefault((peer, backend), []).append(result)
    for key in [key for key in runs if key[0]]:
        medians = [
            [statistics.median(run[name] for run in runs[who]) for who in ((False, "default"), key)]
            for name in ("rate", "cpu_rate")
        ]
        print(f"this / LeRobot's {key[1]}: {medians[0][0] / medians[0][1]:.1f} ", end="")
        print(f"({medians[1][0] / medians[1][1]:.1f} per CPU second)")


def memory(args, root: Path) -> None:
    """Resident memory while samples are drawn in random order."""
    import torch

    from lerobot.common.datasets.lerobot_dataset import LeRobotDataset

    dataset = LeRobotDataset(root=root, delta_timestamps=DELTAS, return_uint8=True)
    order = torch.randint(len(dataset), (10_000,), generator=torch.Generator().manual_seed(0)).tolist()
    for count, index in enumerate(order):
        dataset[index]
        if count % 1000 == 999:
            with open("/proc/self/statm") as file:
                pages = int(file.read().split()[1])
            print(f"{count + 1:6} samples: {pages * resource.getpagesize() / 2**20:.0f} MiB")


def many_episodes(args, folder: Path) -> None:
    """Samples per second of datasets with ever more episodes: one file each (v2.1), and joined (v3.0).

    Every file has been read from once before, as after the first pass over a dataset.
    """
    from lerobot.common.datasets.lerobot_dataset import LeRobotDataset
    from lerobot.common.datasets.v30.convert_dataset_v21_to_v30 import convert

    seed = folder / "seed"
    if not seed.exists():
        record(seed, 10, 30, 96, 128, "v2.1")
    for episodes in (10, 100, 1000):
        old, new = folder / f"v21_{episodes}", folder / f"v30_{episodes}"
        if not new.exists():
            repeat_episodes(seed, old, episodes)
            convert(LeRobotDataset(root=old), new, verify=False)
        for root in (old, new):
            start = time.process_time()
            dataset = LeRobotDataset(root=root, delta_timestamps=DELTAS)
            opened = time.process_time() - start
            start = time.process_time()
            for episode in dataset.meta.episodes:
                dataset[int(dataset.episode_data_index["from"][episode])]
            first = time.process_time() - start
            rate, cpu_rate = measure(dataset, 0, args.batches, LeRobotDataset.collate)
            print(
                f"{root.name:8}: {rate:.0f} samples/s, {cpu_rate:.0f} per CPU second, opened in {opened:.2f} CPU s, "
                f"a first sample of every episode in {first:.2f} CPU s",
                flush=True,
            )


def repeat_episodes(source: Path, root: Path, episodes: int) -> None:
    """A v2.1 dataset whose episodes are those of `source` over and over: new numbers, links to the same videos."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    info = json.loads((source / "meta/info.json").read_text())
    lines = {name: (source / f"meta/{name}.jsonl").read_text().splitlines() for name in ("episodes", "episodes_stats")}
    rows = {name: [json.loads(line) for line in text] for name, text in lines.items()}
    count, first = info["total_episodes"], 0
    cameras = [key for key, feature in info["features"].items() if feature["dtype"] == "video"]
    tables = [pq.read_table(source / info["data_path"].format(episode_chunk=0, episode_index=i)) for i in range(count)]
    (root / "meta").mkdir(parents=True)
    for episode in range(episodes):
        place = {"episode_chunk": episode // info["chunks_size"], "episode_index": episode}
        table = tables[episode % count]
        numbers = {"episode_index": [episode] * len(table), "index": range(first, first + len(table))}
        for name, values in numbers.items():
            table = table.set_column(table.schema.get_field_index(name), name, pa.array(values, pa.int64()))
        path = root / info["data_path"].format(**place)
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, path)
        for key in cameras:
            path = root / info["video_path"].format(video_key=key, **place)
            path.parent.mkdir(parents=True, exist_ok=True)
            os.link(
                source / info["video_path"].format(video_key=key, episode_chunk=0, episode_index=episode % count), path
            )
        first += len(table)
    for name, kept in rows.items():
        new = [{**kept[i % count], "episode_index": i} for i in range(episodes)]
        (root / f"meta/{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in new))
    (root / "meta/tasks.jsonl").write_text((source / "meta/tasks.jsonl").read_text())
    totals = {"total_episodes": episodes, "total_frames": first, "total_videos": episodes * len(cameras)}
    (root / "meta/info.json").write_text(json.dumps({**info, **totals, "splits": {"train": f"0:{episodes}"}}))


def main() -> None:
    """Entry point of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer-python", help="python of an environment with LeRobot 0.4.4")
    parser.add_argument("--python", help="python for this package (default: this one)")
    parser.add_argument("--root", type=Path, help="folder for the synthetic dataset (default: temporary)")
    parser.add_argument("--only", choices=["compare", "workers", "recording", "memory", "episodes"], default="compare")
    parser.add_argument("--compare-workers", type=json.loads, default=[0, 2], metavar="[WORKERS]")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--batches", type=int, default=25)
    parser.add_argument("--episodes", type=int, default=10)
    parser.add_argument("--frames", type=int, default=150)
    parser.add_argument("--height", type=int, default=480)
    parser.add_argument("--width", type=int, default=640)
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--backend", default="pyav", help=argparse.SUPPRESS)
    parser.add_argument("--workers", type=int, default=0, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(record_one(args) if args.only == "recording" else run_one(args)))
        return
    if args.only == "workers":
        args.compare_workers = [2]
    with tempfile.TemporaryDirectory() as folder:
        if args.only in ("episodes", "recording"):
            {"episodes": many_episodes, "recording": recording}[args.only](args, args.root or Path(folder))
            return
        root = args.root or Path(folder) / "grasps"
        if not root.exists():
            record(root, args.episodes, args.frames, args.height, args.width)
        memory(args, root) if args.only == "memory" else compare(args, root)


if __name__ == "__main__":
    main()
