"""What each policy says about inputs that it cannot use: one message that names what was found and what to change."""

import pytest
import torch

from lerobot.common.policies.common.inputs import MissingInputError
from lerobot.common.policies.factory import get_policy_class, make_pre_post_processors
from lerobot.configs.types import FeatureType, PolicyFeature

from .regression_table import ROWS, tiny_config

STATE, CAMERA = "observation.state", "observation.images.front"
SQUARE = (3, 40, 40)
each_policy = pytest.mark.parametrize("name", sorted(ROWS))


def config_of(name, inputs=None, **changes):
    """A tiny configuration with a state of six joints and one camera, or with other inputs."""
    config = tiny_config(name, **changes)
    inputs = {STATE: (6,), CAMERA: SQUARE} if inputs is None else inputs
    kinds = {STATE: FeatureType.STATE, "observation.environment_state": FeatureType.ENV}
    config.input_features = {k: PolicyFeature(kinds.get(k, FeatureType.VISUAL), s) for k, s in inputs.items()}
    config.output_features = {"action": PolicyFeature(FeatureType.ACTION, (6,))}
    return config


@pytest.fixture(scope="module")
def policies():
    """(policy, preprocessor) by name, built once."""
    built = {}

    def get(name):
        if name not in built:
            torch.manual_seed(0)
            policy = get_policy_class(name)(config_of(name))
            flat = {k: torch.zeros(6) for k in ("mean", "min")} | {k: torch.ones(6) for k in ("std", "max")}
            picture = {"mean": torch.zeros(3, 1, 1), "std": torch.ones(3, 1, 1)}
            stats = {STATE: flat, "action": flat, CAMERA: picture}
            built[name] = policy, make_pre_post_processors(policy.config, dataset_stats=stats)[0]
        policy, preprocessor = built[name]
        policy.reset()
        return policy, preprocessor

    return get


def observation(preprocessor) -> dict:
    return preprocessor({STATE: torch.rand(1, 6), CAMERA: torch.rand(1, *SQUARE), "task": ["Grasp a lego block."]})


def training_batch(policy, observed) -> dict:
    """The same observation at every step that the policy asks for, and actions."""
    config, batch = policy.config, dict(observed)
    for key in (STATE, CAMERA):
        if (steps := len(config.observation_delta_indices or [0])) > 1:
            batch[key] = observed[key].unsqueeze(1).repeat_interleave(steps, 1)
    steps = len(config.action_delta_indices)
    batch["action"] = torch.zeros(1, steps, 6)
    batch["next.reward"] = torch.zeros(1, len(config.reward_delta_indices or []))
    return batch


@each_policy
@pytest.mark.parametrize("key", [STATE, CAMERA])
def test_an_observation_without_an_input_names_it(name, key, policies):
    policy, preprocessor = policies(name)
    batch = observation(preprocessor)
    del batch[key]
    with pytest.raises(MissingInputError, match=key):
        policy.select_action(batch)
    with pytest.raises(KeyError, match=key):  # as LeRobot raises it
        policy.select_action(batch)


@each_policy
def test_training_without_actions_says_so(name, policies):
    policy, preprocessor = policies(name)
    batch = training_batch(policy, observation(preprocessor))
    del batch["action"]
    with pytest.raises(MissingInputError, match="lacks 'action'.*recorded actions"):
        policy.train().forward(batch)


@each_policy
def test_actions_of_another_time_window_are_refused_with_both_lengths(name, policies):
    policy, preprocessor = policies(name)
    batch = training_batch(policy, observation(preprocessor))
    steps = batch["action"].shape[1]
    batch["action"] = torch.zeros(1, steps + 3, 6)
    with pytest.raises(ValueError, match=f"'action' has {steps + 3} steps.*asks for {steps}.*delta_timestamps"):
        policy.train().forward(batch)


@each_policy
def test_actions_of_another_robot_are_refused(name, policies):
    policy, preprocessor = policies(name)
    batch = training_batch(policy, observation(preprocessor))
    batch["action"] = batch["action"][..., :5]
    with pytest.raises(ValueError, match=r"'action' has shape.*\(batch, 6\)"):
        policy.train().forward(batch)


@pytest.mark.parametrize("name", ["act", "act_dinov2", "diffusion", "tdmpc", "vqbet"])
def test_a_state_of_another_robot_is_refused(name, policies):
    policy, preprocessor = policies(name)
    batch = observation(preprocessor)
    batch[STATE] = batch[STATE][:, :5]
    with pytest.raises(ValueError, match=r"'observation.state' has shape \(1, 5\).*\(batch, 6\)"):
        policy.select_action(batch)


@pytest.mark.parametrize("name", ["act", "act_dinov2", "diffusion", "tdmpc", "vqbet"])
def test_pictures_with_the_channels_last_are_refused(name, policies):
    policy, preprocessor = policies(name)
    batch = observation(preprocessor)
    batch[CAMERA] = batch[CAMERA].movedim(1, -1)
    with pytest.raises(ValueError, match=f"'{CAMERA}' have shape .1, 40, 40, 3.*3, height, width"):
        policy.select_action(batch)


@pytest.mark.parametrize("name", ["act", "act_dinov2", "diffusion", "tdmpc", "vqbet"])
def test_pictures_in_bytes_are_refused(name, policies):
    policy, preprocessor = policies(name)
    batch = observation(preprocessor)
    batch[CAMERA] = torch.zeros(1, *SQUARE, dtype=torch.uint8)
    with pytest.raises(ValueError, match=f"'{CAMERA}' are torch.uint8.*images_to_float"):
        policy.select_action(batch)


@each_policy
def test_the_checkpoint_of_another_policy_is_refused(name, tmp_path):
    other = "tdmpc" if name != "tdmpc" else "act"
    config_of(other).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="Policy needs a policy configuration .*get_policy_class"):
        get_policy_class(name).from_pretrained(tmp_path)


@pytest.mark.parametrize("name", ["diffusion", "tdmpc", "vqbet"])
def test_pictures_of_another_size_are_refused_where_the_network_has_one(name):
    policy = get_policy_class(name)(config_of(name, **({} if name == "tdmpc" else {"crop_shape": None})))
    batch = {STATE: torch.rand(1, 6), CAMERA: torch.rand(1, 3, 48, 64)}
    with pytest.raises(ValueError, match=f"'{CAMERA}' are 48x64.*40x40.*--policy.image_size"):
        policy.select_action(batch)


UNUSABLE = {
    "act without anything to see": ("act", {STATE: (6,)}, {}, "picture or 'observation.environment_state'"),
    "act_dinov2 without anything to see": ("act_dinov2", {STATE: (6,)}, {}, "picture or"),
    "diffusion without a picture": ("diffusion", {STATE: (6,)}, {}, "needs a picture.*Record with a camera"),
    "diffusion without a state": ("diffusion", {CAMERA: SQUARE}, {}, "needs 'observation.state'"),
    "diffusion with a large crop": ("diffusion", None, {"crop_shape": (64, 40)}, r"crop_shape=\(64, 40\).*40x40"),
    "diffusion with a narrow crop": ("diffusion", None, {"crop_shape": (0, 40)}, r"crop_shape=\(0, 40\)"),
    "vqbet without a picture": ("vqbet", {STATE: (6,)}, {}, "exactly one camera, found 0"),
    "vqbet without a state": ("vqbet", {CAMERA: SQUARE}, {}, "needs 'observation.state'"),
    "vqbet with two cameras": (
        "vqbet",
        {STATE: (6,), CAMERA: SQUARE, "b": SQUARE},
        {},
        "exactly one.*--policy.cameras",
    ),
    "vqbet with a large crop": ("vqbet", None, {"crop_shape": (40, 64)}, r"crop_shape=\(40, 64\).*40x40"),
    "tdmpc without anything": ("tdmpc", {}, {}, "needs a picture, 'observation.state' or"),
    "tdmpc with an oblong picture": ("tdmpc", {CAMERA: (3, 40, 48)}, {}, "40x48.*square.*--policy.image_size"),
    "tdmpc with two cameras": ("tdmpc", {CAMERA: SQUARE, "b": SQUARE}, {}, "at most one camera.*--policy.cameras"),
    "pi0 without a picture": ("pi0", {STATE: (6,)}, {}, "needs a picture"),
}


@pytest.mark.parametrize("name, inputs, changes, words", UNUSABLE.values(), ids=UNUSABLE.keys())
def test_features_and_sizes_that_do_not_fit_are_refused(name, inputs, changes, words):
    with pytest.raises(ValueError, match=words):
        get_policy_class(name)(config_of(name, inputs, **changes))


@each_policy
def test_counts_below_one_are_refused_by_their_flag(name):
    counts = ("n_obs_steps", *type(tiny_config(name)).counts)
    assert len(counts) > 5
    for field in counts:
        with pytest.raises(ValueError, match=f"--policy.{field}=0: expected at least 1"):
            tiny_config(name, **{field: 0})


HORIZONS = {
    "act": ({"n_action_steps": 6}, "n_action_steps=6 is more than chunk_size=5"),
    "act_dinov2": ({"n_action_steps": 6}, "n_action_steps=6 is more than chunk_size=5"),
    "diffusion": ({"horizon": 10}, "horizon=10.*multiple of.* 4"),
    "diffusion steps": ({"n_action_steps": 8}, "n_action_steps=8: expected 1 to 7"),
    "pi0": ({"n_action_steps": 6}, "n_action_steps=6 is more than chunk_size=5"),
    "smolvla": ({"n_action_steps": 6}, "n_action_steps=6.*chunk_size=5"),
    "tdmpc": ({"n_action_steps": 9, "n_action_repeats": 1}, "n_action_steps=9 is more than horizon"),
    "vqbet": ({"gpt_block_size": 3}, "gpt_block_size=3"),
}


@pytest.mark.parametrize("name, changes, words", [(k.split()[0], *v) for k, v in HORIZONS.items()], ids=HORIZONS.keys())
def test_horizons_and_chunks_that_do_not_fit_are_refused(name, changes, words):
    with pytest.raises(ValueError, match=words):
        get_policy_class(name)(config_of(name, **changes))


@pytest.mark.parametrize("name", ["act", "diffusion", "vqbet"])
def test_backbone_weights_that_cannot_be_had_name_every_way_out(name, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    changes = {
        "backbone_width": 64,
        "backbone_layers": 4,
        "pretrained_backbone_weights": "ResNet18_Weights.IMAGENET1K_V1",
    }
    changes |= {"backbone_norm": "frozen"} if name == "act" else {"use_group_norm": False}
    with pytest.raises(FileNotFoundError, match="resnet18.*--policy.pretrained_backbone_weights"):
        get_policy_class(name)(config_of(name, **changes))
