"""The configuration of the doctor."""

from dataclasses import dataclass, field


@dataclass
class DoctorDataset:
    """Which dataset is looked at."""

    root: str | None = None  # folder of the dataset


@dataclass
class DoctorPolicy:
    """Which policy is looked at."""

    path: str | None = None  # checkpoint: a run, a step folder, or its pretrained_model
    type: str | None = None  # or a policy that is to be trained from zero
    device: str | None = None  # cpu, cuda: the one that is wanted


@dataclass
class DoctorConfig:
    """Say what is wrong with this machine, a dataset, a checkpoint, a run or a robot, and what mends it."""

    dataset: DoctorDataset = field(default_factory=DoctorDataset)
    policy: DoctorPolicy = field(default_factory=DoctorPolicy)
    output_dir: str | None = None  # a run that is there, or the folder for one to come
    steps: int = 100_000  # of the training that is planned
    batch_size: int = 8
    save_freq: int = 20_000
    rename_map: dict[str, str] = field(default_factory=dict)  # dataset or robot camera key -> key of the checkpoint
    decode: bool = False  # also look at every picture of the dataset (minutes)
    json: bool = False  # print the findings as JSON
