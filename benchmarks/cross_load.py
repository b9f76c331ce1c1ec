#!/usr/bin/env python
"""Checkpoints written here load in LeRobot 0.4.4 and the other way round, and give the same actions.

    python benchmarks/cross_load.py --peer-python PEER/bin/python [--policies act,smolvla,...] [--folder DIR]

PEER is an environment with `lerobot[smolvla]==0.4.4`. Either interpreter runs this file unchanged, with the module
names of LeRobot 0.4.4: one writes a small random policy with its processors, both load it and act on the same
observations. Prints the largest difference of the actions, as a fraction of their standard deviation.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
VLM_FILES = PROJECT / "tests" / "artifacts" / "smolvla033_koch" / "vlm"
CAMERAS = ("observation.images.laptop", "observation.images.phone")
SIZE, JOINTS, CALLS = (3, 64, 96), 6, 6
SMALL = {
    "act": {
        "chunk_size": 8,
        "n_action_steps": 2,
        "dim_model": 32,
        "n_heads": 2,
        "dim_feedforward": 64,
        "n_encoder_layers": 2,
        "latent_dim": 8,
        "pretrained_backbone_weights": None,
    },
    "smolvla": {
        "chunk_size": 8,
        "n_action_steps": 2,
        "num_vlm_layers": 4,
        "num_steps": 5,
        "resize_imgs_with_padding": (64, 64),
        "load_vlm_weights": True,
        "tokenizer_max_length": 16,
    },
    "diffusion": {
        "horizon": 8,
        "n_action_steps": 2,
        "down_dims": (32, 64),
        "num_inference_steps": 5,
        "crop_shape": (56, 80),
        "spatial_softmax_num_keypoints": 8,
        "diffusion_step_embed_dim": 16,
    },
    "vqbet": {
        "gpt_n_layer": 2,
        "gpt_n_head": 2,
        "gpt_hidden_dim": 32,
        "gpt_input_dim": 32,
        "gpt_output_dim": 32,
        "crop_shape": (56, 80),
        "vqvae_embedding_dim": 16,
        "spatial_softmax_num_keypoints": 8,
    },
    "tdmpc": {
        "image_encoder_hidden_dim": 8,
        "state_encoder_hidden_dim": 16,
        "latent_dim": 10,
        "mlp_dim": 16,
        "n_pi_samples": 5,
        "n_gaussian_samples": 20,
        "n_elites": 5,
        "cem_iterations": 3,
        "horizon": 3,
    },
}
PICTURES = {"vqbet": {CAMERAS[0]: SIZE}, "tdmpc": {"observation.image": (3, 64, 64)}}  # these take exactly one
SIDES = ("here", "peer")


# --- what each interpreter runs -----------------------------------------------------------------------------


def features_of(kind: str):
    """The features that a policy is built with."""
    from lerobot.configs.types import FeatureType, PolicyFeature

    inputs = {"observation.state": PolicyFeature(FeatureType.STATE, (JOINTS,))}
    for name, size in PICTURES.get(kind, dict.fromkeys(CAMERAS, SIZE)).items():
        inputs[name] = PolicyFeature(FeatureType.VISUAL, size)
    return inputs, {"action": PolicyFeature(FeatureType.ACTION, (JOINTS,))}


def make_vlm(folder: Path) -> Path:
    """A tiny vision-language model with random bfloat16 weights, for both sides to build SmolVLA from."""
    import shutil

    import torch
    from transformers import AutoConfig, SmolVLMForConditionalGeneration

    if not folder.exists():
        shutil.copytree(VLM_FILES, folder)
        torch.manual_seed(1)
        model = SmolVLMForConditionalGeneration(AutoConfig.from_pretrained(folder)).to(torch.bfloat16)
        model.save_pretrained(folder)
    return folder


def write(kind: str, folder: Path, vlm: Path) -> None:
    """Save a random policy and its processors."""
    import torch
    from lerobot.policies.factory import get_policy_class, make_policy_config, make_pre_post_processors

    options = dict(SMALL[kind])
    if kind == "smolvla":
        options["vlm_model_name"] = str(make_vlm(vlm))
    inputs, outputs = features_of(kind)
    config = make_policy_config(kind, device="cpu", push_to_hub=False, **options)
    config.input_features, config.output_features = inputs, outputs
    torch.manual_seed(2)
    policy = get_policy_class(kind)(config)
    stats = {}
    for name, feature in {**inputs, **outputs}.items():
        shape = (3, 1, 1) if "image" in name else feature.shape
        low, high = (torch.zeros(shape), torch.ones(shape)) if "image" in name else (-90 * torch.rand(shape), 60.0)
        stats[name] = {"min": low, "max": low * 0 + high, "mean": (low + high) / 2, "std": (high - low) / 4}
    for part in (policy, *make_pre_post_processors(config, dataset_stats=stats)):
        part.save_pretrained(folder)


def act(kind: str, folder: Path, result: Path) -> None:
    """Load a checkpoint as a script would and write the actions of successive observations as JSON."""
    import torch
    from lerobot.policies.factory import get_policy_class, make_pre_post_processors

    from lerobot.configs.policies import PreTrainedConfig

    config = PreTrainedConfig.from_pretrained(folder)
    policy = get_policy_class(config.type).from_pretrained(folder, config=config)
    preprocessor, postprocessor = make_pre_post_processors(config, pretrained_path=str(folder))
    generator = torch.Generator().manual_seed(3)
    actions = []
    policy.reset()
    torch.manual_seed(4)  # the noise of policies that draw some
    for _ in range(CALLS):
        batch = {"task": "Grasp a lego block and put it in the bin."}
        for name, feature in features_of(kind)[0].items():
            values = torch.rand(feature.shape, generator=generator)
            batch[name] = values if "image" in name else 60 * values - 40
        with torch.inference_mode():
            actions.append(postprocessor(policy.select_action(preprocessor(batch)))[0].tolist())
    result.write_text(json.dumps(actions))


# --- the comparison -----------------------------------------------------------------------------------------


def run(side: str, peer_python: str, *arguments) -> str | None:
    """Run this file in one of the interpreters; returns the last line of its error, None if it succeeded."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    environment.pop("PYTHONPATH", None)
    if side == "here":
        environment["PYTHONPATH"] = str(PROJECT)
    python = sys.executable if side == "here" else peer_python
    # From a folder without a package named lerobot: the peer must find its own.
    command = [python, "-P", str(Path(__file__).resolve()), *map(str, arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=tempfile.gettempdir())
    return None if done.returncode == 0 else (done.stderr.strip().splitlines() or ["no message"])[-1]


def compare(kind: str, writer: str, folder: Path, peer_python: str) -> float | str:
    """The largest difference of the two sides' actions over their standard deviation, or an error."""
    checkpoint = folder / f"{kind}_{writer}"
    if error := run(writer, peer_python, "write", kind, checkpoint, folder / "vlm"):
        return f"{writer} cannot write: {error}"
    actions = []
    for side in SIDES:
        result = folder / f"{kind}_{writer}_{side}.json"
        if error := run(side, peer_python, "act", kind, checkpoint, result):
            return f"{side} cannot run it: {error}"
        actions.append(json.loads(result.read_text()))
    flat = [[value for action in side for value in action] for side in actions]
    mean = sum(flat[0]) / len(flat[0])
    spread = (sum((value - mean) ** 2 for value in flat[0]) / len(flat[0])) ** 0.5
    return max(abs(a - b) for a, b in zip(*flat, strict=True)) / spread


def main() -> int:
    """Compare and print a table; exit code 1 if a checkpoint does not load."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer-python", required=True, help="Python of an environment with LeRobot 0.4.4")
    parser.add_argument("--policies", default=",".join(SMALL), help="comma-separated")
    parser.add_argument("--folder", type=Path, help="keep checkpoints and actions here")
    args = parser.parse_args()
    failed = False
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        for kind in args.policies.split(","):
            for writer in SIDES:
                result = compare(kind, writer, folder.resolve(), args.peer_python)
                failed |= isinstance(result, str)
                text = result if isinstance(result, str) else f"{result:.1e}"
                print(f"{kind:<10} written {'here' if writer == 'here' else 'by 0.4.4'}: {text}", flush=True)
    return int(failed)


if __name__ == "__main__":
    if len(sys.argv) > 1 and sys.argv[1] == "write":
        write(sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4]))
    elif len(sys.argv) > 1 and sys.argv[1] == "act":
        act(sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4]))
    else:
        sys.exit(main())
