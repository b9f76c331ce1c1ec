"""In which order frames are visited."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch

from lerobot.common.utils.random_utils import derive_seed


class FrameAddress(int):
    """A frame number with the seed and epoch it was drawn in, on which its random draws depend."""

    def __new__(cls, index: int, seed: int, epoch: int):
        address = super().__new__(cls, index)
        address.seed, address.epoch = seed, epoch
        return address

    @property
    def draw_seed(self) -> int:
        """Seed of everything that is drawn for this frame in this epoch."""
        return derive_seed(self.seed, self.epoch, int(self))

    def __reduce__(self):
        return FrameAddress, (int(self), self.seed, self.epoch)


class EpochSampler(torch.utils.data.Sampler):
    """Every frame once per epoch, in an order that is a function of (seed, epoch); resumable at any frame.

    `frames` is a number of frames or a list of frame numbers. Each pass of iter() runs to the end of the
    current epoch and moves on to the next; a pass that is broken off continues where it stopped. With loader
    workers the sampler runs ahead of what was trained on: a resumed run computes (epoch, position) from its
    step.
    """

    def __init__(
        self,
        frames: int | Sequence[int],
        seed: int = 0,
        epoch: int = 0,
        position: int = 0,
        shuffle: bool = True,
    ):
        self.frames = range(frames) if isinstance(frames, int) else frames
        self.seed, self.epoch, self.position, self.shuffle = seed, epoch, position, shuffle

    def __len__(self) -> int:
        return len(self.frames)

    def order(self, epoch: int) -> list[int]:
        """The frame numbers of an epoch."""
        if not self.shuffle:
            return list(self.frames)
        generator = torch.Generator().manual_seed(derive_seed(self.seed, epoch))
        return [self.frames[i] for i in torch.randperm(len(self.frames), generator=generator).tolist()]

    def __iter__(self) -> Iterator[FrameAddress]:
        order = self.order(self.epoch)
        while self.position < len(order):
            index = order[self.position]
            self.position += 1
            yield FrameAddress(index, self.seed, self.epoch)
        self.epoch, self.position = self.epoch + 1, 0

    def set_epoch(self, epoch: int) -> None:
        """Start the next pass at the beginning of `epoch`."""
        self.epoch, self.position = epoch, 0

    def state_dict(self) -> dict[str, int]:
        """Where the sampler stands."""
        return {"seed": self.seed, "epoch": self.epoch, "position": self.position}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Stand where `state_dict` was taken."""
        self.seed, self.epoch, self.position = state["seed"], state["epoch"], state["position"]


class EpisodeAwareSampler(torch.utils.data.Sampler):
    """Frames of chosen episodes without their first or last ones; shuffles with torch's global generator.

    Both of LeRobot's call forms: (episode_data_index, ...) with a mapping {"from", "to"}, and
    (dataset_from_indices, dataset_to_indices, ...); then `episode_indices_to_use` (positions in those lists;
    None: all), `drop_n_first_frames`, `drop_n_last_frames`, `shuffle`. `indices` lists the frames in order.
    """

    def __init__(self, *args, **kwargs):
        first = args[0] if args else kwargs.get("episode_data_index")
        bounds = ("episode_data_index",)
        if not isinstance(first, Mapping):
            bounds = ("dataset_from_indices", "dataset_to_indices")
        names = (*bounds, "episode_indices_to_use", "drop_n_first_frames", "drop_n_last_frames", "shuffle")
        names += ("seed", "absolute_to_relative_idx")
        unknown = sorted(set(kwargs) - set(names))
        if len(args) > len(names) or unknown:
            raise TypeError(f"EpisodeAwareSampler takes {names}; found {len(args)} positional and {unknown}.")
        given = {**dict(zip(names, args, strict=False)), **kwargs}
        if isinstance(first, Mapping):
            starts, ends = first["from"], first["to"]
        else:
            starts, ends = given["dataset_from_indices"], given["dataset_to_indices"]
        used = given.get("episode_indices_to_use")
        head, tail = given.get("drop_n_first_frames", 0), given.get("drop_n_last_frames", 0)
        self.shuffle = given.get("shuffle", False)
        self.indices: list[int] = []
        for position, (start, end) in enumerate(zip(starts, ends, strict=True)):
            if used is None or position in used:
                self.indices += range(int(start) + head, int(end) - tail)
        places = given.get("absolute_to_relative_idx")
        if places is not None:
            self.indices = [places[index] for index in self.indices]
        self.seed, self.epoch = given.get("seed"), 0

    def __len__(self) -> int:
        return len(self.indices)

    def __iter__(self) -> Iterator[int]:
        generator = None
        if self.seed is not None:
            generator = torch.Generator().manual_seed(derive_seed(self.seed, self.epoch))
            self.epoch += 1
        if self.shuffle:
            return iter([self.indices[i] for i in torch.randperm(len(self.indices), generator=generator).tolist()])
        return iter(self.indices)

    def set_epoch(self, epoch: int) -> None:
        """Make the next pass that of `epoch`; without `seed` it has no effect."""
        self.epoch = epoch
