"""Small policies' worth of features, statistics and a tokenizer that needs no network."""

from types import SimpleNamespace

import pytest
import torch

from lerobot.configs.types import FeatureType, NormalizationMode, PolicyFeature

CAMERA = "observation.images.wrist_left"


@pytest.fixture
def config():
    """The fields of a policy configuration that processors read."""
    return SimpleNamespace(
        input_features={
            "observation.state": PolicyFeature(FeatureType.STATE, (2,)),
            CAMERA: PolicyFeature(FeatureType.VISUAL, (3, 4, 6)),
            "observation.environment_state": PolicyFeature(FeatureType.ENV, (5,)),
        },
        output_features={"action": PolicyFeature(FeatureType.ACTION, (2,))},
        normalization_mapping={
            "VISUAL": NormalizationMode.MEAN_STD,
            "STATE": NormalizationMode.MIN_MAX,
            "ACTION": NormalizationMode.MEAN_STD,
        },
        device="cpu",
        image_size=None,
    )


@pytest.fixture
def stats():
    """Statistics as a dataset has them, with ones that no feature of the policy uses."""
    return {
        "observation.state": {"min": [0.0, -2.0], "max": [4.0, 2.0], "count": [50]},
        CAMERA: {"mean": torch.full((3, 1, 1), 0.5), "std": torch.full((3, 1, 1), 0.25)},
        "action": {"mean": torch.tensor([1.0, 2.0]), "std": torch.tensor([2.0, 4.0])},
        "timestamp": {"mean": [3.0], "std": [1.0]},
    }


@pytest.fixture
def frame():
    """One frame as a control loop has it: no batch axis."""
    return {
        "observation.state": torch.tensor([1.0, 0.0]),
        CAMERA: torch.full((3, 4, 6), 0.75),
        "observation.environment_state": torch.arange(5.0),
        "task": "lift the cube",
        "frame_index": 7,
    }


@pytest.fixture(scope="session")
def tokenizer_folder(tmp_path_factory):
    """A saved word-level tokenizer: [PAD] 0, [UNK] 1, lift 2, the 3, cube 4, newline 5."""
    transformers = pytest.importorskip("transformers")
    tokenizers = pytest.importorskip("tokenizers")
    words = ["[PAD]", "[UNK]", "lift", "the", "cube", "\n"]
    model = tokenizers.models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="[UNK]")
    tokenizer = tokenizers.Tokenizer(model)
    split = tokenizers.pre_tokenizers.Split
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Sequence([split(" ", "removed"), split("\n", "isolated")])
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", truncation_side="left"
    )
    folder = tmp_path_factory.mktemp("tokenizer") / "words"
    fast.save_pretrained(folder)
    return folder
