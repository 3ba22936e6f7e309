"""The size of a step beside the weights, against what the live optimizer and model hold."""

import pytest
import torch

from vqdoctor.core.evidence import Unavailable
from vqdoctor.probes.file import step_size


@pytest.fixture
def size(examine, ask):
    def size(model, optimizer):
        saved = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
        return ask(step_size, examine(saved), None)

    return size


def test_is_what_the_live_optimizer_does(tiny, trained, size):
    model = tiny()
    optimizer = trained(model, 30)
    found = size(model, optimizer)
    matrices = [p.detach() for p in model.parameters() if p.ndim == 2]
    assert (found.sample_size, found.updates, found.learning_rate) == (4, 30, 1e-3)
    roots = sorted(p.shape[1] ** 0.5 for p in matrices)
    assert found.step == pytest.approx(1e-3 * (roots[1] + roots[2]) / 2, rel=1e-6)
    sizes = sorted(float(p.square().mean().sqrt()) * p.shape[1] ** 0.5 for p in matrices)
    assert found.growth == pytest.approx((sizes[1] + sizes[2]) / 2, rel=1e-5)


def test_a_schedule_that_came_down(tiny, trained, size):
    model = tiny()
    optimizer = trained(model, 3)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.1)
    for _ in range(3):
        optimizer.step()
        schedule.step()
    found = size(model, optimizer)
    assert found.highest_step == pytest.approx(1000 * found.step)


@pytest.mark.parametrize(
    "build",
    [
        lambda p: torch.optim.SGD(p, lr=1.0, momentum=0.9),
        lambda p: torch.optim.Adadelta(p, lr=1.0),
        lambda p: torch.optim.RMSprop(p, lr=1.0),
    ],
)
def test_other_optimizers_are_not_judged(tiny, trained, size, build):
    model = tiny()
    missing = size(model, trained(model, 2, optimizer=lambda p, lr: build(p)))
    assert isinstance(missing, Unavailable) and "Adam" in missing.reason


def test_no_step_was_taken(tiny, size):
    model = tiny()
    assert isinstance(size(model, torch.optim.Adam(model.parameters(), lr=1.0)), Unavailable)
