"""One optimizer step with the signatures of newer LeRobot releases."""

import threading

import pytest
import torch
from lerobot.scripts.lerobot_train import update_policy
from lerobot.utils.logging_utils import AverageMeter, MetricsTracker


class Line(torch.nn.Module):
    """y = weight * x, with a count of `update` calls."""

    def __init__(self):
        super().__init__()
        self.weight, self.updates = torch.nn.Parameter(torch.tensor([2.0])), 0

    def forward(self, batch):
        loss = ((self.weight * batch["x"] - batch["y"]) ** 2).mean()
        return loss, {"weight": self.weight.item()}

    def update(self):
        self.updates += 1


def tracker() -> MetricsTracker:
    meters = {name: AverageMeter(name) for name in ("loss", "grad_norm", "lr", "update_s")}
    return MetricsTracker(1, 10, 1, meters)


BATCH = {"x": torch.ones(4), "y": torch.zeros(4)}


def step(*more, clip=10.0, **options):
    policy = Line()
    optimizer = torch.optim.SGD(policy.parameters(), lr=0.1)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda n: 1 / (n + 1))
    metrics, output = update_policy(tracker(), policy, BATCH, optimizer, clip, *more, lr_scheduler=scheduler, **options)
    assert output == {"weight": 2.0} and policy.updates == 1 and policy.weight.grad is None
    assert metrics.loss.val == 4 and metrics.grad_norm.val == 4 and metrics.lr.val == pytest.approx(0.05)
    return policy.weight.item()


def test_a_step_clips_and_steps_the_scheduler():
    assert step() == pytest.approx(2 - 0.1 * 4)
    assert step(clip=1.0) == pytest.approx(2 - 0.1 * 1)
    assert step(clip=0) == pytest.approx(2 - 0.1 * 4)
    assert step(torch.amp.GradScaler("cpu", enabled=False), lock=threading.Lock()) == pytest.approx(2 - 0.1 * 4)


def test_an_accelerator_may_stand_in_the_place_of_the_scaler():
    accelerate = pytest.importorskip("accelerate")
    accelerator = accelerate.Accelerator(cpu=True)
    assert step(accelerator) == pytest.approx(2 - 0.1 * 4)
    assert step(accelerator=accelerator, clip=1.0) == pytest.approx(2 - 0.1 * 1)
