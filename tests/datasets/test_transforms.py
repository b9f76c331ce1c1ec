"""Augmentation: formulas, defaults, and draws that can be repeated."""

import draccus
import pytest
import torch
from torch.utils.data import DataLoader

from lerobot.common.datasets.lerobot_dataset import LeRobotDataset
from lerobot.common.datasets.sampler import EpochSampler
from lerobot.common.datasets.transforms import (
    ColorJitter,
    Identity,
    ImageTransformConfig,
    ImageTransforms,
    ImageTransformsConfig,
    RandomAffine,
    RandomSubsetApply,
    SharpnessJitter,
    adjust_brightness,
    adjust_contrast,
    adjust_hue,
    adjust_saturation,
    adjust_sharpness,
    affine,
    make_transform_from_config,
)
from lerobot.common.training.data import augment_on_device, make_prepare

LUMA = torch.tensor([0.2989, 0.587, 0.114])


@pytest.fixture
def image():
    return torch.rand(3, 12, 16, generator=torch.Generator().manual_seed(0))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_factor_one_changes_nothing(image):
    for adjust in (adjust_brightness, adjust_contrast, adjust_saturation, adjust_sharpness):
        assert torch.allclose(adjust(image, 1.0), image, atol=1e-6)
    assert torch.allclose(adjust_hue(image, 0.0), image, atol=1e-6)
    assert torch.equal(affine(image, 0.0, (0, 0)), image)


def test_factor_zero_is_black_grey_or_blurred(image):
    luma = (image * LUMA.view(3, 1, 1)).sum(0)
    assert adjust_brightness(image, 0.0).abs().max() == 0
    assert torch.allclose(adjust_saturation(image, 0.0), luma.expand(3, -1, -1), atol=1e-6)
    assert torch.allclose(adjust_contrast(image, 0.0), luma.mean().expand(3, 12, 16), atol=1e-6)
    blurred = adjust_sharpness(image, 0.0)
    window = image[:, 3:6, 4:7]
    assert torch.allclose(blurred[:, 4, 5], (window.sum((1, 2)) + 4 * image[:, 4, 5]) / 13, atol=1e-6)
    assert torch.equal(blurred[:, 0], image[:, 0]) and torch.equal(blurred[..., -1], image[..., -1])


def test_results_stay_within_the_range(image):
    for adjust in (adjust_brightness, adjust_contrast, adjust_saturation, adjust_sharpness):
        result = adjust(image, 3.0)
        assert result.min() >= 0 and result.max() <= 1 and not torch.allclose(result, image)


def test_a_third_of_a_turn_of_hue_permutes_the_channels(image):
    assert torch.allclose(adjust_hue(image, 1 / 3), image[[2, 0, 1]], atol=1e-5)
    grey = torch.full((3, 2, 2), 0.4)
    assert torch.allclose(adjust_hue(grey, 0.3), grey)


def test_affine_shifts_right_and_down_and_turns_clockwise(image):
    shifted = affine(image, 0.0, (2, 3))
    assert torch.equal(shifted[:, 3:, 2:], image[:, :-3, :-2])
    assert shifted[:, :3].abs().max() == 0 and shifted[..., :2].abs().max() == 0
    square = image[:, :, :12]
    assert torch.equal(affine(square, 90.0, (0, 0)), torch.rot90(square, -1, (1, 2)))


def test_time_steps_share_a_draw_and_are_treated_alike(image):
    steps = torch.stack([image, image.flip(-1)])
    for transform in (ColorJitter(0.5, 0.5, 0.5, 0.1), SharpnessJitter(0.5), RandomAffine(5, (0.1, 0.1))):
        together = transform(steps, generator())
        assert torch.allclose(together[0], transform(steps[0], generator()), atol=1e-6)
        assert torch.allclose(together[1], transform(steps[1], generator()), atol=1e-6)


def test_jitter_ranges():
    assert SharpnessJitter(0.5).sharpness == (0.5, 1.5) and SharpnessJitter(3).sharpness == (0, 4)
    assert SharpnessJitter((0.2, 0.7)).sharpness == (0.2, 0.7)
    assert ColorJitter(hue=0.1).ranges["hue"] == (-0.1, 0.1)
    for wrong, error in ((-1.0, ValueError), ((2, 1), ValueError), ("a", TypeError), ((1, 2, 3), TypeError)):
        with pytest.raises(error):
            SharpnessJitter(wrong)


def test_subsets_are_drawn_by_weight_and_keep_their_order(image):
    class Note:
        def __init__(self, name):
            self.name = name

        def __call__(self, image, generator=None):
            calls[-1].append(self.name)
            return image

    calls = []
    apply = RandomSubsetApply([Note(name) for name in "abcd"], p=[1, 1, 0, 2], n_subset=2)
    draws = generator()
    for _ in range(200):
        calls.append([])
        apply(image, draws)
    assert all(call == sorted(call) and len(call) == 2 for call in calls)
    counts = {name: sum(name in call for call in calls) for name in "abcd"}
    assert counts["c"] == 0 and counts["d"] > max(counts["a"], counts["b"])


@pytest.mark.parametrize(
    "arguments, error",
    [
        (({1, 2},), TypeError),
        (([Identity()], [1.0, 2.0]), ValueError),
        (([Identity()], None, 2), ValueError),
        (([Identity()], None, 0), ValueError),
        (([Identity()], None, 1.0), TypeError),
    ],
)
def test_impossible_subsets_are_refused(arguments, error):
    with pytest.raises(error):
        RandomSubsetApply(*arguments)


def test_defaults():
    config = ImageTransformsConfig()
    assert (config.enable, config.max_num_transforms, config.random_order) == (False, 3, False)
    described = {name: (tf.weight, tf.type, tf.kwargs) for name, tf in config.tfs.items()}
    assert described == {
        "brightness": (1.0, "ColorJitter", {"brightness": (0.8, 1.2)}),
        "contrast": (1.0, "ColorJitter", {"contrast": (0.8, 1.2)}),
        "saturation": (1.0, "ColorJitter", {"saturation": (0.5, 1.5)}),
        "hue": (1.0, "ColorJitter", {"hue": (-0.05, 0.05)}),
        "sharpness": (1.0, "SharpnessJitter", {"sharpness": (0.5, 1.5)}),
        "affine": (1.0, "RandomAffine", {"degrees": (-5.0, 5.0), "translate": (0.05, 0.05)}),
    }


def test_config_survives_the_command_line(image):
    config = draccus.decode(ImageTransformsConfig, draccus.encode(ImageTransformsConfig(enable=True)))
    expected = ImageTransforms(ImageTransformsConfig(enable=True))(image, generator())
    assert torch.equal(ImageTransforms(config)(image, generator()), expected)
    parsed = draccus.parse(ImageTransformsConfig, args=["--enable=true", "--max_num_transforms=1"])
    assert parsed.enable and parsed.max_num_transforms == 1 and len(parsed.tfs) == 6


def test_zero_or_disabled_transforms_change_nothing(image):
    zero = {"a": ImageTransformConfig(weight=0.0, type="ColorJitter", kwargs={"brightness": (2, 2)})}
    for config in (
        ImageTransformsConfig(),
        ImageTransformsConfig(enable=True, max_num_transforms=0),
        ImageTransformsConfig(enable=True, tfs=zero),
    ):
        assert torch.equal(ImageTransforms(config)(image), image)
    with pytest.raises(ValueError, match="Solarize"):
        make_transform_from_config(ImageTransformConfig(type="Solarize"))


def test_uint8_pictures_stay_uint8(image):
    apply = ImageTransforms(ImageTransformsConfig(enable=True))
    as_uint8 = (image * 255).round().to(torch.uint8)
    result, expected = apply(as_uint8, generator()), apply(as_uint8 / 255, generator())
    assert result.dtype == torch.uint8
    assert (result / 255 - expected).abs().max() <= 0.5 / 255 + 1e-6


def test_draws_are_a_function_of_seed_epoch_and_frame(recorded_root):
    transforms = ImageTransforms(ImageTransformsConfig(enable=True))
    dataset = LeRobotDataset(root=recorded_root, image_transforms=transforms)

    def pictures(seed, epoch, batch_size, workers=0):
        loader = DataLoader(
            dataset,
            batch_size,
            sampler=EpochSampler(19, seed, epoch),
            collate_fn=dataset.collate,
            num_workers=workers,
        )
        torch.manual_seed(torch.randint(1000, ()).item())
        batches = list(loader)
        order = torch.cat([batch["index"] for batch in batches]).argsort()
        return torch.cat([batch["observation.images.cam0"] for batch in batches])[order]

    first = pictures(1, 0, 4)
    assert torch.equal(first, pictures(1, 0, 19)) and torch.equal(first, pictures(1, 0, 5, workers=2))
    assert not torch.equal(first, pictures(1, 1, 4)) and not torch.equal(first, pictures(2, 0, 4))


def augmented_batches(root, device: str | None) -> list[dict]:
    """What a policy would read of an epoch; `device`: augmented there instead of in the loader."""
    transforms = ImageTransforms(ImageTransformsConfig(enable=True))
    dataset = LeRobotDataset(root=root, image_transforms=transforms, return_uint8=True)
    target = torch.device(device or "cpu")
    prepare = make_prepare(lambda batch: batch, target, augment_on_device(dataset, target) if device else None)
    loader = DataLoader(dataset, 4, sampler=EpochSampler(19, seed=3), collate_fn=dataset.collate)
    return [prepare(batch) for batch in loader]


def test_augmentation_after_the_loader_gives_the_same_pictures(recorded_root):
    plain = LeRobotDataset(root=recorded_root)
    batches = augmented_batches(recorded_root, "cpu"), augmented_batches(recorded_root, None)
    for later, sooner in zip(*batches, strict=True):
        assert later.keys() == sooner.keys()
        pictures = later["observation.images.cam0"]
        assert torch.equal(pictures, sooner["observation.images.cam0"])
        assert not torch.equal(pictures[0], plain[int(later["index"][0])]["observation.images.cam0"])
    assert augment_on_device(plain, torch.device("cpu")) is None


@pytest.mark.gpu
def test_a_gpu_draws_the_same(recorded_root):
    batches = augmented_batches(recorded_root, "cuda"), augmented_batches(recorded_root, None)
    for on_gpu, on_cpu in zip(*batches, strict=True):
        difference = (on_gpu["observation.images.cam0"].cpu() - on_cpu["observation.images.cam0"]).abs()
        assert (difference > 1.5 / 255).float().mean() < 0.01  # a turned picture may take the pixel beside it
