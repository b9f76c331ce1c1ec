"""Where training numbers go beside the terminal and metrics.jsonl: Weights & Biases, TensorBoard, Trackio."""

from __future__ import annotations

from pathlib import Path


def make_sinks(cfg) -> list:
    """The trackers that `--wandb.enable`, `--tensorboard` and `--trackio.enable` ask for.

    Each has `log_dict(values, step, mode)`, `log_video(path, step, mode)` and `close()`. Raises ImportError naming
    the extra that is missing.
    """
    sinks: list = []
    if cfg.wandb.enable:
        from lerobot.common.utils.wandb_utils import WandBLogger

        sinks.append(WandBLogger(cfg))
    if cfg.tensorboard:
        sinks.append(TensorBoardSink(cfg))
    if cfg.trackio.enable:
        sinks.append(TrackioSink(cfg))
    return sinks


class TensorBoardSink:
    """Event files in `<output_dir>/tensorboard`; a resumed run hides the steps that it repeats."""

    def __init__(self, cfg):
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as e:
            raise ImportError("--tensorboard=true needs tensorboard: pip install -e '.[tensorboard]'.") from e
        from lerobot.common.training.checkpoint import load_training_step

        done = load_training_step(cfg.checkpoint_path / "training_state") if cfg.resume else None
        purge = None if done is None else done + 1
        self.writer = SummaryWriter(str(Path(cfg.output_dir) / "tensorboard"), purge_step=purge)

    def log_dict(self, values: dict, step: int, mode: str) -> None:
        """One scalar per number, named `<mode>/<name>`."""
        for name, value in values.items():
            self.writer.add_scalar(f"{mode}/{name}", value, step)

    def log_video(self, path: str | Path, step: int, mode: str) -> None:
        """Show a video among the images, as `<mode>/video`, smaller and with fewer frames."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        from lerobot.common.evaluation.video import animated_gif

        picture, height, width = animated_gif(path)
        image = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=picture)
        value = Summary.Value(tag=f"{mode}/video", image=image)
        self.writer._get_file_writer().add_summary(Summary(value=[value]), step)

    def close(self) -> None:
        """Write what is buffered."""
        self.writer.close()


class TrackioSink:
    """A run of a local Trackio project; a resumed run continues it."""

    def __init__(self, cfg):
        try:
            import trackio
        except ImportError as e:
            raise ImportError("--trackio.enable=true needs trackio: pip install -e '.[trackio]'.") from e
        self.trackio = trackio
        name = f"{cfg.job_name}-{Path(cfg.output_dir).name}"  # the same when the run is resumed
        trackio.init(
            project=cfg.trackio.project,
            name=name,
            space_id=cfg.trackio.space_id,
            config=cfg.to_dict(),
            resume="allow",
        )

    def log_dict(self, values: dict, step: int, mode: str) -> None:
        """One number per name, `<mode>/<name>`."""
        self.trackio.log({f"{mode}/{name}": float(value) for name, value in values.items()}, step=step)

    def log_video(self, path: str | Path, step: int, mode: str) -> None:
        """Show a video as `<mode>/video`."""
        self.trackio.log({f"{mode}/video": self.trackio.Video(str(path), format="mp4")}, step=step)

    def close(self) -> None:
        """Finish the run."""
        self.trackio.finish()
