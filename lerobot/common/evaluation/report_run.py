"""From a checkpoint and a dataset to a report card."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from lerobot.common.checks.facts import checkpoint_facts, dataset_facts
from lerobot.common.checks.finding import Finding
from lerobot.common.checks.match import check_match
from lerobot.common.constants import OBS_STATE
from lerobot.common.datasets.factory import resolve_delta_timestamps
from lerobot.common.datasets.lerobot_dataset import LeRobotDataset
from lerobot.common.datasets.utils import dataset_to_policy_features
from lerobot.common.evaluation.evaluate import check_shapes, rename_map_of
from lerobot.common.evaluation.open_loop import executed_steps, open_loop_error
from lerobot.common.evaluation.probes import make_probes
from lerobot.common.evaluation.report_card import ReportCard, measure_latency
from lerobot.common.policies.common.fast_inference import use_inference_mode
from lerobot.common.policies.factory import get_policy_class, make_pre_post_processors
from lerobot.common.policies.pretrained import count_parameters
from lerobot.common.training.record import dataset_fingerprint, read_record
from lerobot.configs.policies import PreTrainedConfig

MOST_EPISODES = 5
BATCH = 16


def choose_episodes(meta, wanted: Sequence[int] | None) -> list[int]:
    """`wanted`, or the last tenth of the episodes, which `--dataset.eval_split=0.1` holds out, at most five.

    Raises ValueError for an episode that is not there, an empty choice, and a dataset without any.
    """
    if meta.total_episodes == 0:
        raise ValueError(f"The dataset '{meta.root}' has no episodes: there is nothing to compare a policy with.")
    if wanted is not None:
        if not wanted:
            raise ValueError("--dataset.episodes names no episode; leave it away for the last tenth of them.")
        if missing := sorted(set(wanted) - set(meta.episodes)):
            raise ValueError(
                f"--dataset.episodes: {missing} are not in '{meta.root}', which has 0 to {meta.total_episodes - 1}."
            )
        return sorted(set(wanted))
    count = min(MOST_EPISODES, max(1, round(0.1 * meta.total_episodes)))
    return sorted(meta.episodes)[-count:]


def make_card(path: str, name: str, meta, episodes: list[int], args) -> tuple[ReportCard, LeRobotDataset]:
    """Measure a checkpoint (`args`: device, rename_map, seed, chunks); returns its card and the episodes it saw."""
    config = PreTrainedConfig.from_pretrained(path, cli_overrides=[f"--device={args.device}"] if args.device else [])
    config.pretrained_path = path
    policy = get_policy_class(config.type).from_pretrained(path, config=config)
    use_inference_mode(policy)
    renamed = {"rename_observations_processor": {"rename_map": args.rename_map}} if args.rename_map else {}
    preprocessor, postprocessor = make_pre_post_processors(config, path, preprocessor_overrides=renamed)
    names = rename_map_of(preprocessor)
    given = {names.get(k, k): tuple(f.shape) for k, f in dataset_to_policy_features(meta.features).items()}
    check_shapes(given, config, "dataset")

    every = executed_steps(config)
    shown = fewer(episodes, meta, every, args.chunks)
    dataset = LeRobotDataset(
        meta.repo_id,
        root=meta.root,
        episodes=shown,
        delta_timestamps=resolve_delta_timestamps(config, meta),
        return_uint8=True,
    )
    tasks = [meta.tasks[i] for i in sorted(meta.tasks)]
    probes = make_probes(dataset.meta.camera_keys, tasks, OBS_STATE in dataset.features)
    parts = policy, preprocessor, postprocessor, dataset
    stride = max(every, -(-meta.episodes[shown[-1]]["length"] // args.chunks))
    report = open_loop_error(*parts, every=stride, batch_size=BATCH, seed=args.seed, probes=probes)
    card = ReportCard(
        name=name,
        path=path,
        policy_type=config.type,
        parameters=count_parameters(policy),
        device=str(config.device),
        reads_instruction=reads_instruction(preprocessor),
        report=report,
        every=every,
        fps=dataset.fps,
        latency_s=measure_latency(*parts, row=0),
        trained_on=trained_on(path, meta, dataset.episode_indices),
        tasks=tasks,
        mismatches=mismatches(path, config, meta),
    )
    return card, dataset


def mismatches(path: str, config, meta) -> list[Finding]:
    """What of rate, joints and units a recording has otherwise than the checkpoint's training data."""
    found = check_match(dataset_facts(meta), checkpoint_facts(path, config, {}, read_record(path)))
    told = ("match.fps", "match.joint_order", "match.joint_names", "match.units")
    return [dataclasses.replace(finding, fix="") for finding in found if finding.code in told]


def fewer(episodes: list[int], meta, every: int, most: int) -> list[int]:
    """The last episodes with at most `most` chunks in all, at least one."""
    kept, chunks = [], 0
    for episode in reversed(episodes):
        chunks += -(-meta.episodes[episode]["length"] // every)
        if kept and chunks > most:
            break
        kept.append(episode)
    return kept[::-1]


def reads_instruction(preprocessor) -> bool:
    """Whether the sentence becomes tokens on its way to the policy."""
    return any(hasattr(step, "tokenizer_name") for step in preprocessor.steps)


def trained_on(path: str, meta, episodes: Sequence[int]) -> bool | None:
    """Whether a checkpoint was trained on some of these episodes; None where it does not say."""
    record: dict[str, Any] | None = read_record(path)
    if record is None:
        return None
    same = record["dataset"]["fingerprint"] == dataset_fingerprint(meta)
    return same and bool(set(record["dataset"]["episodes"]) & set(episodes))
