"""What must hold for every policy, whatever changes: learning, saving, resuming, statistics, freezing, masking."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import lerobot.common.policies  # noqa: F401  registers every policy
from lerobot.common.datasets.collate import collate
from lerobot.common.datasets.factory import make_dataset
from lerobot.common.datasets.lerobot_dataset import LeRobotDataset
from lerobot.common.policies.common.losses import masked_mean
from lerobot.common.policies.factory import get_policy_class, make_policy, make_pre_post_processors
from lerobot.common.training.processors import images_as_float
from lerobot.common.utils.random_utils import set_seed
from lerobot.configs.default import DatasetConfig
from lerobot.configs.parser import parse
from lerobot.configs.policies import PreTrainedConfig
from lerobot.configs.train import TrainPipelineConfig
from lerobot.configs.types import NormalizationMode
from lerobot.scripts.train import train

from .golden import read_case
from .golden_case import ARTIFACTS
from .regression_table import ROWS, overfit_config, tiny_config

# Of this package: other tests register stand-ins.
REGISTERED = sorted(k for k, v in PreTrainedConfig.get_known_choices().items() if v.__module__.startswith("lerobot."))
POLICIES = [name for name in REGISTERED if name in ROWS]
LAST_FRAMES = [0, 3, 11, 12, 23]  # the last steps of some of these chunks lie beyond the end of their episode

each_policy = pytest.mark.parametrize("name", POLICIES)
each_device = pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])


@pytest.fixture(scope="session")
def root(tmp_path_factory):
    """Two episodes of 12 frames, two cameras, a camera name with an underscore."""
    root = tmp_path_factory.mktemp("regression") / "tiny"
    vector = {"dtype": "float32", "shape": (6,), "names": [f"joint_{i}" for i in range(6)]}
    picture = {"dtype": "video", "shape": (40, 40, 3), "names": ["height", "width", "channels"]}
    cameras = {f"observation.images.{c}": picture for c in ("front", "wrist_left")}
    features = {"observation.state": vector, "action": vector, **cameras}
    dataset = LeRobotDataset.create("tiny", 30, root=root, features=features, robot_type="koch")
    rng = np.random.default_rng(0)
    for _ in range(2):
        path = rng.normal(size=(12, 6)).astype(np.float32)
        for state in path:
            pictures = {c: rng.integers(0, 255, (40, 40, 3), dtype=np.uint8) for c in cameras}
            task = {"task": "Grasp a lego block."}
            dataset.add_frame({"observation.state": state, "action": -state, **pictures, **task})
        dataset.save_episode()
    return root


def training_config(root, policy, output_dir, **changes) -> TrainPipelineConfig:
    """Four steps with a checkpoint after two."""
    settings = {"steps": 4, "batch_size": 4, "num_workers": 0, "log_freq": 1, "save_freq": 2}
    dataset = DatasetConfig(root=str(root), **ROWS[policy.type].dataset)
    return TrainPipelineConfig(dataset=dataset, policy=policy, output_dir=output_dir, **{**settings, **changes})


def prepare(root, config, frames=LAST_FRAMES):
    """A policy with the dataset's features, its processors, and one preprocessed batch."""
    cfg = training_config(root, config, None)
    dataset = make_dataset(cfg, return_uint8=True)
    set_seed(0)
    policy = make_policy(config, ds_meta=dataset.meta)
    pre, post = make_pre_post_processors(config, dataset_stats=dataset.meta.stats)
    batch = pre(images_as_float(collate([dataset[i] for i in frames]), torch.device(config.device)))
    optimizer = torch.optim.Adam(policy.parameters(), lr=1e-4)
    for _ in range(ROWS[config.type].warm):
        step(policy, optimizer, batch)
    return policy, batch, (pre, post)


def observation_of(config) -> dict:
    """A raw observation, drawn from a fixed seed."""
    draw = torch.Generator().manual_seed(1)
    observed = {k: torch.rand(1, *f.shape, generator=draw) for k, f in config.input_features.items()}
    return {**observed, "task": ["Grasp a lego block."]}


def actions_of(policy, processors, observation) -> torch.Tensor:
    """Four raw actions from a fresh episode."""
    pre, post = processors
    set_seed(7)
    policy.reset()
    return torch.stack([post(policy.select_action(pre(dict(observation)))) for _ in range(4)])


def step(policy, optimizer, batch, autocast=False) -> torch.Tensor:
    """One optimizer step whose draws are always the same; returns the loss."""
    policy.train()
    set_seed(3)
    with torch.autocast(policy.config.device, torch.bfloat16, enabled=autocast):
        loss, _ = policy.forward(batch)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(policy.parameters(), 10.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    if hasattr(policy, "update"):
        policy.update()
    return loss.detach()


def test_every_registered_policy_has_a_row():
    missing = [name for name in REGISTERED if name not in ROWS]
    assert not missing, f"add rows to tests/policies/regression_table.py for {missing}"


@each_policy
def test_the_paper_and_the_memory_are_named(name):
    text = PreTrainedConfig.get_known_choices()[name].__doc__
    assert "https://arxiv.org/abs/" in text
    assert " GB" in text or " MB" in text


@pytest.mark.parametrize("name", ["act", "diffusion", "smolvla", "tdmpc", "vqbet"])
def test_a_saved_configuration_has_exactly_the_fields_of_lerobot(name, tmp_path):
    theirs = ARTIFACTS / ROWS[name].golden[0] / "checkpoint"
    PreTrainedConfig.from_pretrained(theirs).save_pretrained(tmp_path)
    saved, expected = (json.loads((folder / "config.json").read_text()) for folder in (tmp_path, theirs))
    assert sorted(saved) == sorted(expected)


@pytest.fixture(scope="module")
def runs(root, tmp_path_factory):
    """Train a policy for four steps, once; returns the folder of the run."""
    done = {}

    def run(name):
        if name not in done:
            folder = tmp_path_factory.mktemp("runs") / name
            train(training_config(root, tiny_config(name), folder))
            done[name] = folder / "checkpoints"
        return done[name]

    return run


@each_policy
def test_golden_loss(name):
    for case in ROWS[name].golden:
        found, expected = read_case(case).loss()
        assert found == pytest.approx(expected, rel=1e-5), case


@each_policy
def test_golden_actions(name):
    for case in ROWS[name].golden:
        found, expected = read_case(case).actions()
        torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-5)


@each_policy
def test_saved_and_loaded_actions_are_equal(name, runs, tmp_path):
    folder = runs(name) / "last" / "pretrained_model"
    observation, found = None, []
    for place in (folder, tmp_path):
        policy = get_policy_class(name).from_pretrained(place, strict=True)
        processors = make_pre_post_processors(policy.config, pretrained_path=place)
        observation = observation or observation_of(policy.config)
        found.append(actions_of(policy, processors, observation))
        for part in (policy, *processors):
            part.save_pretrained(tmp_path)
    assert torch.equal(*found)
    assert found[0].isfinite().all()


@each_policy
def test_one_batch_is_learned_by_heart(name, root):
    row = ROWS[name]
    policy, batch, _ = prepare(root, overfit_config(name))
    optimizer = torch.optim.Adam([p for p in policy.parameters() if p.requires_grad], lr=row.lr)
    first, best = step(policy, optimizer, batch), float("inf")
    for _ in range(row.steps):
        best = min(best, step(policy, optimizer, batch).item())
        if best < first / 10:
            return
    raise AssertionError(f"the loss fell from {first:.4g} to {best:.4g} only")


@each_policy
def test_resumed_training_equals_uninterrupted(name, runs):
    whole = runs(name) / "000004" / "pretrained_model" / "model.safetensors"
    before = load_file(whole)
    config = runs(name) / "000002" / "pretrained_model" / "train_config.json"
    train(parse(TrainPipelineConfig, ["--resume=true", f"--config_path={config}"]))
    after = load_file(whole)
    assert before.keys() == after.keys()
    assert all(torch.equal(v, after[k]) for k, v in before.items())


@each_policy
def test_every_declared_feature_has_statistics(name, runs):
    folder = runs(name) / "last" / "pretrained_model"
    config = PreTrainedConfig.from_pretrained(folder)
    features = {**config.input_features, **config.output_features}
    assert features
    pre, post = make_pre_post_processors(config, pretrained_path=folder)
    for pipeline in (pre, post):
        (normalizer,) = (s for s in pipeline.steps if hasattr(s, "norm_map"))
        stored = {k.rpartition(".")[0] for k in normalizer.state_dict()}
        assert set(features) <= stored
    used = [k for k, f in features.items() if _is_normalized(config, f) and k in config.input_features]
    for key in used:
        lacking, _ = make_pre_post_processors(config, pretrained_path=folder)
        (normalizer,) = (s for s in lacking.steps if hasattr(s, "norm_map"))
        normalizer.load_state_dict({k: v for k, v in normalizer.state_dict().items() if not k.startswith(key)})
        with pytest.raises(ValueError, match=key):
            lacking(observation_of(config))


def _is_normalized(config, feature) -> bool:
    return config.normalization_mapping.get(feature.type.name, NormalizationMode.IDENTITY) != NormalizationMode.IDENTITY


def frozen_copy(policy):
    """The policy with the flags of its row that freeze a part, and the same weights."""
    for key, value in ROWS[policy.name].frozen.items():
        setattr(policy.config, key, value)
    weights = policy.state_dict()
    policy = type(policy)(policy.config)
    policy.load_state_dict(weights)
    return policy


@each_policy
def test_frozen_features_give_the_same_loss(name, root):
    policy, batch, _ = prepare(root, tiny_config(name))
    policy = frozen_copy(policy).train()
    if not policy.frozen_feature_modes():
        pytest.skip("every part is trained")
    set_seed(3)
    expected, _ = policy.forward(dict(batch))
    for mode in policy.frozen_feature_modes():
        rest = {k: v for k, v in batch.items() if k not in policy.config.image_features}
        kept = policy.frozen_features(batch, mode)
        set_seed(3)
        assert torch.equal(policy.forward({**rest, **kept})[0], expected), mode


@each_policy
def test_frozen_parameters_never_change(name, root):
    row = ROWS[name]
    policy, batch, _ = prepare(root, tiny_config(name))
    policy = frozen_copy(policy)
    by_flag = {n for n, p in policy.named_parameters() if not p.requires_grad}
    assert by_flag or not row.frozen
    for parameter in [p for p in policy.parameters() if p.requires_grad][::2]:
        parameter.requires_grad_(False)
    before = {n: p.detach().clone() for n, p in policy.named_parameters()}
    config = policy.config.get_optimizer_preset()
    optimizer = config.build(policy.get_optim_params())
    for group in optimizer.param_groups:
        group["weight_decay"] = 0.1
    for _ in range(3):
        step(policy, optimizer, batch)
    changed = {n for n, p in policy.named_parameters() if not torch.equal(p, before[n])}
    trained = {n for n, p in policy.named_parameters() if p.requires_grad}
    assert not {n for n in changed - trained if not n.startswith(row.moving)}
    assert changed & trained


@each_policy
def test_padding_has_no_gradient_and_the_mean_is_over_valid_entries(name, root, monkeypatch):
    policy, batch, _ = prepare(root, tiny_config(name))
    assert batch["action_is_pad"].any()
    seen = []

    def watched(values, is_pad, width=None, over_padding=False, **which):
        result = masked_mean(values, is_pad, width, over_padding, **which)
        if values.requires_grad:
            values.retain_grad()
            seen.append((values, is_pad, width, result))
        return result

    for module in {sys.modules[cls.__module__] for cls in type(policy).__mro__}:
        if hasattr(module, "masked_mean"):
            monkeypatch.setattr(module, "masked_mean", watched)
    policy.train()
    policy.forward(batch)[0].backward()
    masked = [call for call in seen if call[1] is not None and call[0].grad is not None]
    assert masked, "no loss went through masked_mean with a mask"
    for values, is_pad, width, result in masked:
        real = values[..., :width] if width is not None else values
        torch.testing.assert_close(result, real[~is_pad].mean())
        assert is_pad.any()
        assert (values.grad[is_pad] == 0).all()
        if width is not None:
            assert (values.grad[..., width:] == 0).all()
        kept = (values.grad[..., :width] if width is not None else values.grad)[~is_pad]
        torch.testing.assert_close(kept, kept.flatten()[0].expand_as(kept))


@each_policy
def test_loss_over_padding_counts_padded_steps(name, root):
    losses = []
    for over in (False, True):
        policy, batch, _ = prepare(root, tiny_config(name, loss_over_padding=over))
        set_seed(5)
        losses.append(policy.train().forward(batch)[0].item())
    assert losses[0] != losses[1]
    assert np.isfinite(losses).all()


@each_policy
def test_a_field_changed_after_loading_holds_in_every_part(name, root, tmp_path):
    policy, batch, _ = prepare(root, tiny_config(name))
    policy.save_pretrained(tmp_path)
    losses = []
    for over in (False, True):
        loaded = get_policy_class(name).from_pretrained(tmp_path)
        loaded.config.loss_over_padding = over
        set_seed(5)
        losses.append(loaded.train().forward(batch)[0].item())
    set_seed(5)
    assert losses[0] == pytest.approx(policy.train().forward(batch)[0].item(), rel=1e-5)
    assert losses[1] != losses[0]


@each_device
@each_policy
def test_mixed_precision_trains_near_full_precision(name, device, root):
    found = []
    for autocast in (False, True):
        policy, batch, processors = prepare(root, tiny_config(name, device))
        optimizer = torch.optim.Adam([p for p in policy.parameters() if p.requires_grad], lr=1e-3)
        found.append(torch.stack([step(policy, optimizer, batch, autocast) for _ in range(3)]))
        with torch.autocast(device, torch.bfloat16, enabled=autocast):
            actions = actions_of(policy, processors, observation_of(policy.config))
        assert actions.isfinite().all() and actions.dtype == torch.float32  # raw units are not rounded
        assert all(p.dtype == torch.float32 for p in policy.parameters())
    torch.testing.assert_close(found[1].float(), found[0].float(), rtol=0.1, atol=0.05)


@each_policy
@pytest.mark.gpu
def test_training_on_a_gpu_saves_what_loads_on_a_cpu(name, root, tmp_path):
    train(training_config(root, tiny_config(name, "cuda"), tmp_path / "run", steps=2))
    folder = tmp_path / "run" / "checkpoints" / "last" / "pretrained_model"
    config = PreTrainedConfig.from_pretrained(folder, cli_overrides=["--device=cpu"])
    policy = get_policy_class(name).from_pretrained(folder, config=config)
    processors = make_pre_post_processors(config, pretrained_path=folder)
    assert actions_of(policy, processors, observation_of(config)).isfinite().all()
    assert json.loads((folder / "config.json").read_text())["device"] == "cuda"
