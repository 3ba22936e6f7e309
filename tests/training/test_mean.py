"""The mean of a model in training, against plain arithmetic and a noisy descent."""

from __future__ import annotations

import torch
from small_training import Digits, reference_layer

from vqdoctor.training.mean import MeanModel


def value(model: torch.nn.Module) -> float:
    return float(model.weight.detach()[0, 0])


def linear() -> torch.nn.Linear:
    model = torch.nn.Linear(1, 1)
    model.bias.requires_grad_(False)
    return model


def move(model: torch.nn.Module, to: float) -> None:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(to)


def test_the_mean_looks_back_over_a_tenth_of_the_steps() -> None:
    """With the number of a step for its weight: the mean with weights as n^9 is ten elevenths of n."""
    model = linear()
    mean = MeanModel(model=model, layers=())
    for step in range(1, 2001):
        move(model, float(step))
        mean.after_step()
    with mean.instead():
        assert abs(value(model) / 2000 - 10 / 11) < 0.002
        assert float(model.bias.detach()) == 2000  # frozen: nothing of a training is in it
    assert value(model) == 2000


def test_the_first_step_is_the_mean_of_itself() -> None:
    model = linear()
    mean = MeanModel(model=model, layers=())
    for first in (3.0, 5.0):
        mean.restart()
        move(model, first)
        mean.after_step()
        move(model, 100.0)
        with mean.instead():
            assert value(model) == first
    mean.take()
    assert value(model) == 5.0
    move(model, 7.0)
    with mean.instead():  # what was taken is forgotten
        assert value(model) == 7.0


def test_the_mean_lies_nearer_to_the_best_place_than_the_last_step() -> None:
    torch.manual_seed(0)
    model = torch.nn.Linear(20, 1, bias=False)
    truth = torch.randn(1, 20)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02)
    mean = MeanModel(model=model, layers=())
    for _ in range(2000):
        x = torch.randn(8, 20)
        y = x @ truth.T + 3 * torch.randn(8, 1)
        optimizer.zero_grad()
        (model(x) - y).square().mean().backward()
        optimizer.step()
        mean.after_step()
    last = float((model.weight - truth).detach().norm())
    with mean.instead():
        assert float((model.weight - truth).detach().norm()) < last / 2


def test_codes_and_their_counts_stay_as_the_last_step_left_them_and_batch_norms_are_averaged() -> None:
    model = Digits().model()
    model.norm = torch.nn.BatchNorm1d(2)
    model.register_buffer("shadow", torch.zeros(3))
    mean = MeanModel(model=model, layers=(reference_layer(model),))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    mean.after_step()
    with torch.no_grad():
        for tensor in model.state_dict().values():
            tensor.add_(1)
    mean.after_step()
    with mean.instead():
        now = model.state_dict()
        averaged = {name for name in now if not torch.equal(now[name], before[name] + 1)}
    assert {name for name in now if name.startswith("vq.")} and not any(n.startswith("vq.") for n in averaged)
    assert {"norm.running_mean", "norm.running_var", "norm.weight", "head.weight"} <= averaged
    assert "shadow" not in averaged and "norm.num_batches_tracked" not in averaged


def test_a_part_that_is_frozen_for_a_while_is_in_the_mean_and_comes_back() -> None:
    """As a GAN's step freezes the model while the discriminator learns, or while the model is looked at."""
    model = linear()
    mean = MeanModel(model=model, layers=())
    for step in (1.0, 2.0, 3.0):
        model.requires_grad_(True)
        move(model, step)
        model.requires_grad_(False)
        mean.after_step()
    with mean.instead():
        model.requires_grad_(True)
        assert value(model) < 3.0
        model.requires_grad_(False)
    assert value(model) == 3.0


def test_complex_parameters_are_averaged_too() -> None:
    model = torch.nn.ParameterDict({"wave": torch.zeros(3, dtype=torch.complex64)})
    mean = MeanModel(model=model, layers=())
    for step in (1 + 1j, 2 + 4j):
        with torch.no_grad():
            model["wave"].fill_(step)
        mean.after_step()
    with mean.instead():
        assert torch.allclose(model["wave"].detach(), torch.tensor((1 + 1j + 10 * (2 + 4j)) / 11))


def test_values_of_low_precision_are_averaged_in_a_higher_one() -> None:
    model = linear().to(torch.bfloat16)
    mean = MeanModel(model=model, layers=())
    for step in range(1000):
        move(model, 1.0 + (step % 2) / 64)
        mean.after_step()
    assert mean.state_dict()["values"]["weight"].dtype == torch.float32
    assert abs(float(mean.state_dict()["values"]["weight"]) - (1 + 1 / 128)) < 1e-3
    with mean.instead():
        assert model.weight.dtype == torch.bfloat16
