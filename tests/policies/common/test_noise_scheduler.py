"""Noise schedules and sampling steps, against values of the published formulas."""

import pytest
import torch

from lerobot.common.policies.common.noise_scheduler import NoiseScheduler, make_betas

X = torch.tensor([1.5409961, -0.2934289, -2.1787894, 0.5684313])
PREDICTED = torch.tensor([-1.0845224, -1.3985955, 0.4033468, 0.8380263])


def test_squared_cosine_betas():
    betas = NoiseScheduler().betas
    expected = {0: 0.000631282, 1: 0.001116937, 50: 0.031546339, 98: 0.749939263, 99: 0.999}
    assert {i: betas[i].item() for i in expected} == pytest.approx(expected, rel=1e-6)


def test_cumulative_products():
    kept = NoiseScheduler().alphas_cumprod
    expected = {0: 0.999368727, 50: 0.478264570, 99: 2.42854e-7}
    assert {i: kept[i].item() for i in expected} == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    "schedule, first, last",
    [
        ("linear", 1e-4, 0.02),
        ("scaled_linear", 1e-4, 0.02),
        ("sigmoid", 1e-4 + 0.0199 * 0.0024726, 0.02 - 0.0199 * 0.0024726),
    ],
)
def test_other_betas(schedule, first, last):
    betas = make_betas(schedule, 10, 1e-4, 0.02)
    assert betas.shape == (10,) and (betas.diff() > 0).all()
    assert (betas[0].item(), betas[-1].item()) == pytest.approx((first, last), rel=1e-3)


@pytest.mark.parametrize("kind, schedule", [("DDPM", "exponential"), ("DDIM", "sigmoid")])
def test_unknown_betas_are_refused(kind, schedule):
    with pytest.raises(NotImplementedError, match=f"{schedule}.*{kind}"):
        NoiseScheduler(kind, beta_schedule=schedule)


def test_timesteps_are_evenly_spaced_and_end_at_zero():
    assert NoiseScheduler().timesteps(10) == list(range(90, -1, -10))
    assert NoiseScheduler().timesteps(7) == [84, 70, 56, 42, 28, 14, 0]
    assert NoiseScheduler().timesteps() == list(range(99, -1, -1))


def test_more_timesteps_than_trained_are_refused():
    with pytest.raises(ValueError, match="num_inference_steps=101.*num_train_timesteps=100"):
        NoiseScheduler().timesteps(101)


def test_ddim_step():
    after = NoiseScheduler("DDIM").step(PREDICTED, 50, X, 40)
    torch.testing.assert_close(after, torch.tensor([0.1378658, -0.0525268, -0.5507977, 0.4655967]))


@pytest.mark.parametrize("kind", ["DDPM", "DDIM"])
def test_last_step_draws_nothing(kind):
    before = torch.get_rng_state()
    after = NoiseScheduler(kind).step(PREDICTED, 0, X, -10)
    torch.testing.assert_close(after, torch.tensor([1.0, -0.2583705, -1.0, 0.5475486]))
    assert torch.equal(before, torch.get_rng_state())


def test_ddpm_step_draws_around_the_posterior_mean():
    scheduler, torch_x = NoiseScheduler("DDPM", clip_sample=False), torch.full((100_000,), 0.5)
    torch.manual_seed(0)
    after = scheduler.step(torch.full_like(torch_x, 0.2), 50, torch_x, 49)
    a, b = scheduler.alphas_cumprod[50], scheduler.alphas_cumprod[49]
    clean = (0.5 - (1 - a).sqrt() * 0.2) / a.sqrt()
    mean = b.sqrt() * (1 - a / b) / (1 - a) * clean + (a / b).sqrt() * (1 - b) / (1 - a) * 0.5
    assert after.mean().item() == pytest.approx(mean.item(), abs=2e-3)
    assert after.var().item() == pytest.approx(((1 - b) / (1 - a) * (1 - a / b)).item(), rel=0.02)


@pytest.mark.parametrize("kind", ["DDPM", "DDIM"])
@pytest.mark.parametrize("prediction_type", ["epsilon", "sample"])
def test_a_perfect_network_gives_the_clean_sample(kind, prediction_type):
    clean = torch.tensor([[0.3, -0.7]])
    scheduler = NoiseScheduler(kind, prediction_type=prediction_type)

    def network(x, timesteps):
        kept = scheduler.alphas_cumprod[timesteps][:, None]
        return clean if prediction_type == "sample" else (x - kept.sqrt() * clean) / (1 - kept).sqrt()

    torch.manual_seed(0)
    torch.testing.assert_close(scheduler.sample(network, torch.randn(1, 2), 20), clean, atol=1e-4, rtol=0)


def test_noise_of_a_sample_prediction_comes_from_the_unclipped_estimate():
    scheduler = NoiseScheduler("DDIM", prediction_type="sample")
    kept, before = scheduler.alphas_cumprod[50], scheduler.alphas_cumprod[40]
    after = scheduler.step(torch.tensor([3.0]), 50, torch.tensor([0.5]), 40)
    noise = (0.5 - kept.sqrt() * 3.0) / (1 - kept).sqrt()
    torch.testing.assert_close(after, (before.sqrt() * 1.0 + (1 - before).sqrt() * noise)[None])


def test_added_noise():
    scheduler, noise = NoiseScheduler(), torch.full((2, 3, 1), 2.0)
    noisy = scheduler.add_noise(torch.ones(2, 3, 1), noise, torch.tensor([0, 99]))
    kept = scheduler.alphas_cumprod[[0, 99]]
    torch.testing.assert_close(noisy[:, 0, 0], kept.sqrt() + (1 - kept).sqrt() * 2)


def test_training_on_another_device_leaves_sampling_where_it_was():
    scheduler, x = NoiseScheduler(), torch.zeros(1, 2, device="meta")
    assert scheduler.add_noise(x, x, torch.zeros(1, dtype=torch.long, device="meta")).device.type == "meta"
    assert scheduler.step(torch.ones(1, 2), 50, torch.ones(1, 2), 40).device.type == "cpu"
