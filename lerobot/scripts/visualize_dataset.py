#!/usr/bin/env python
"""Look at one episode in rerun: pictures, states, actions on a time line.

python lerobot/scripts/visualize_dataset.py --repo-id=me/grasps --root=my_grasps --episode-index=0
python lerobot/scripts/visualize_dataset.py --repo-id=me/grasps --root=my_grasps --episode-index=0 \
    --save=1 --output-dir=recordings           # a file for another computer: rerun recordings/me_grasps_episode_0.rrd
python lerobot/scripts/visualize_dataset.py --repo-id=me/grasps --root=my_grasps --episode-index=0 \
    --mode=distant                             # on the robot's computer; open the address it prints in your browser
"""

import argparse
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader
from tqdm import tqdm

from lerobot.common.datasets.lerobot_dataset import LeRobotDataset
from lerobot.common.utils.utils import init_logging, run_command

VECTORS = {"action": "action", "observation.state": "state"}  # logged as <name>/<index of the joint>
SCALARS = ("next.done", "next.reward", "next.success")


def import_rerun():
    """The module rerun; ImportError naming the extra."""
    try:
        import rerun
    except ImportError as error:
        raise ImportError('Showing data in rerun needs rerun-sdk: pip install -e ".[visualize]"') from error
    return rerun


def log_episode(recording, dataset: LeRobotDataset, batch_size: int, num_workers: int, compress: bool = False) -> None:
    """Log every frame of a dataset that has one episode and was opened with `return_uint8`."""
    loader = DataLoader(dataset, batch_size, num_workers=num_workers, collate_fn=LeRobotDataset.collate)
    with tqdm(total=len(dataset), unit="frame", leave=False) as bar:
        for batch in loader:
            for row in range(len(batch["index"])):
                _log_frame(recording, dataset.meta.camera_keys, {k: v[row] for k, v in batch.items()}, compress)
                bar.update()


def _log_frame(recording, cameras: list[str], frame: dict[str, torch.Tensor], compress: bool) -> None:
    rerun = import_rerun()
    recording.set_time("frame_index", sequence=frame["frame_index"].item())
    recording.set_time("timestamp", duration=frame["timestamp"].item())
    for key in cameras:
        image = rerun.Image(frame[key].permute(1, 2, 0).numpy())
        recording.log(key, image.compress() if compress else image)
    for key, name in VECTORS.items():
        for joint, value in enumerate(frame[key].flatten().tolist() if key in frame else []):
            recording.log(f"{name}/{joint}", rerun.Scalars(value))
    for key in SCALARS:
        if key in frame:
            recording.log(key, rerun.Scalars(float(frame[key])))


def save_episode(recording, path: Path, log) -> None:
    """Write what `log()` logs to an .rrd file, which is there when it is whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".rrd.tmp")
    recording.save(unfinished)
    try:
        log()
        recording.disconnect()
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def visualize_dataset(
    dataset: LeRobotDataset,
    episode_index: int,
    batch_size: int = 32,
    num_workers: int = 0,
    mode: str = "local",
    web_port: int = 9090,
    grpc_port: int = 9087,
    save: bool = False,
    output_dir: Path | None = None,
    display_compressed_images: bool = False,
) -> Path | None:
    """Show an episode in a viewer, serve it as a page (mode `distant`, does not return), or with `save` write a file.

    Returns the file, `output_dir/<repo_id>_episode_<i>.rrd`. ImportError without rerun.
    """
    rerun = import_rerun()
    name = dataset.repo_id or dataset.root.name
    if dataset.num_episodes != 1 or not dataset.return_uint8:
        dataset = LeRobotDataset(name, dataset.root, [episode_index], return_uint8=True)
    recording = rerun.RecordingStream(f"{name}/episode_{episode_index}")

    def log() -> None:
        log_episode(recording, dataset, batch_size, num_workers, display_compressed_images)

    if save:
        path = Path(output_dir) / f"{name.replace('/', '_')}_episode_{episode_index}.rrd"
        save_episode(recording, path, log)
        print(f"{path}: {path.stat().st_size / 1e6:.1f} MB; open it with: rerun {path}")
        return path
    if mode == "local":
        recording.spawn()
        log()
        return None
    address = recording.serve_grpc(grpc_port=grpc_port)
    rerun.serve_web_viewer(web_port=web_port, open_browser=False, connect_to=address)
    log()
    print(f"http://127.0.0.1:{web_port}/?url={address} shows the episode; Ctrl-C ends it.", flush=True)
    threading.Event().wait()
    return None


class EpisodeSampler(torch.utils.data.Sampler):
    """The frames of one episode in their order, for a loader."""

    def __init__(self, dataset: LeRobotDataset, episode_index: int):
        self.rows = dataset.rows_of_episode(episode_index).tolist()

    def __iter__(self) -> Iterator[int]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)


def to_hwc_uint8_numpy(chw_float32_torch: torch.Tensor) -> np.ndarray:
    """A picture float32 (C, H, W) in [0, 1] as uint8 (H, W, C)."""
    return (chw_float32_torch * 255).type(torch.uint8).permute(1, 2, 0).numpy()


def parse_args() -> argparse.Namespace:
    """The flags of the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repo-id", required=True, help="hub id, or any name when --root is given")
    parser.add_argument("--episode-index", type=int, required=True)
    parser.add_argument("--root", type=Path, help="folder of the dataset")
    parser.add_argument("--output-dir", type=Path, help="folder of the .rrd file of --save=1")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--num-workers", type=int, default=4)
    parser.add_argument("--mode", choices=("local", "distant"), default="local", help="distant serves a web page")
    parser.add_argument("--web-port", type=int, default=9090, help="of the page of --mode=distant")
    parser.add_argument("--ws-port", "--grpc-port", type=int, default=9087, help="of the data of --mode=distant")
    parser.add_argument("--save", type=int, choices=(0, 1), default=0, help="1 writes a file and opens no viewer")
    parser.add_argument("--tolerance-s", type=float, default=1e-4, help="how far timestamps may be from frame/fps")
    parser.add_argument("--display-compressed-images", action="store_true", help="JPEG: much smaller, not exact")
    args = parser.parse_args()
    if args.save and args.output_dir is None:
        parser.error("--save=1 needs --output-dir, the folder of the .rrd file.")
    return args


def main() -> None:
    """Entry point of the command line."""
    init_logging()
    args = parse_args()
    import_rerun()
    dataset = LeRobotDataset(
        args.repo_id, args.root, [args.episode_index], tolerance_s=args.tolerance_s, return_uint8=True
    )
    options = vars(args)
    for name in ("repo_id", "root", "tolerance_s"):
        del options[name]
    visualize_dataset(dataset, options.pop("episode_index"), grpc_port=options.pop("ws_port"), **options)


if __name__ == "__main__":
    run_command(main)
