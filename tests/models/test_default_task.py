"""The losses of usual outputs: each shape of output, by hand, and what is said of the choice."""

from __future__ import annotations

import collections
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from vqdoctor.core.errors import UserError
from vqdoctor.models.default_task import DefaultTask, batches_of, input_name
from vqdoctor.models.usual_losses import flatten

GENERATOR = torch.Generator().manual_seed(0)
X = torch.rand(6, 1, 4, 4, generator=GENERATOR)
Y = torch.tensor([0, 1, 2, 0, 1, 2])
RECON = torch.rand(6, 1, 4, 4, generator=GENERATOR)
LOGITS = torch.randn(6, 3, generator=GENERATOR)
INDICES = torch.zeros(6, 2, 2, dtype=torch.long)
VQ, PART = torch.tensor(0.5, requires_grad=True), torch.tensor(0.25, requires_grad=True)
PERPLEXITY = torch.tensor(7.0)

Pair = collections.namedtuple("Pair", "x_recon diff")


class OrderedOutput(collections.OrderedDict):  # type: ignore[type-arg]
    """As transformers' and diffusers' outputs are, with None for what there is not."""


@dataclass
class Output:
    reconstructed: torch.Tensor
    vq_loss: torch.Tensor


class Fake(nn.Module):
    """Gives the output that it is told."""

    def __init__(self, output: Any) -> None:
        super().__init__()
        self.output = output

    def forward(self, x: torch.Tensor) -> Any:
        return self.output


def losses(output: Any, *, y: torch.Tensor | None = None, x: torch.Tensor = X, **options: Any) -> Any:
    batch = {"x": x} if y is None else {"x": x, "y": y}
    task = DefaultTask(Fake(output), {"train": [batch]}, **options)
    found = task.losses(task.model(), batch)
    return found, " / ".join(task.notes)


MSE, CE = functional.mse_loss(RECON, X), functional.cross_entropy(LOGITS, Y)


@pytest.mark.parametrize(
    ("output", "y", "task", "vq"),
    [
        (RECON, None, MSE, None),
        (LOGITS, Y, CE, None),
        ((RECON, INDICES, VQ), None, MSE, 0.5),  # lucidrains
        ((VQ, RECON, PERPLEXITY), None, MSE, 0.5),  # zalando
        ((RECON, VQ[None]), None, MSE, 0.5),  # rosinality
        ((RECON, (VQ, PERPLEXITY, INDICES)), None, MSE, 0.5),  # taming
        ((RECON, INDICES, torch.stack([VQ, PART])), None, MSE, 0.75),  # ResidualVQ
        ((RECON, INDICES, torch.stack([VQ, PART]).expand(2, 2)), None, MSE, 1.5),  # GroupedResidualVQ
        ((LOGITS, VQ), Y, CE, 0.5),
        ({"logits": LOGITS, "reconstruction": RECON, "vq_loss": {"vq": VQ}}, Y, CE, 0.5),  # the reference
        ({"reconstruction": RECON, "vq_loss": {}}, None, MSE, None),
        (
            {"recon": RECON, "commit_loss": VQ, "codebook_loss": PART, "perplexity": PERPLEXITY},
            None,
            MSE,
            0.75,
        ),
        ({"recon": RECON, "vq_loss": VQ, "commitment_loss": PART}, None, MSE, 0.5),  # a total, not its parts
        ({"x_hat": RECON, "loss_vq": VQ}, None, MSE, 0.5),
        ({"audio": RECON, "vq/commitment_loss": VQ, "vq/codebook_loss": PART}, None, MSE, 0.75),  # DAC
        ({"z_q": RECON * 2, "decoded": RECON, "quant_loss": VQ}, None, MSE, 0.5),
        (OrderedOutput(loss=None, sample=RECON, commit_loss=VQ), None, MSE, 0.5),
        ({"recon_loss": PART, "vq_loss": VQ, "recon": RECON}, None, PART, 0.5),
        ({"loss": VQ, "hidden": torch.rand(6, 5)}, None, VQ, None),
        (Pair(RECON, VQ), None, MSE, 0.5),
        (Output(RECON, VQ), None, MSE, 0.5),
    ],
)
def test_usual_outputs(output: Any, y: Any, task: torch.Tensor, vq: float | None) -> None:
    found, _ = losses(output, y=y)
    assert float(found.task.detach()) == pytest.approx(float(task.detach()))
    assert (None if found.vq is None else float(found.vq.detach())) == vq
    assert (found.logits is LOGITS) == (y is not None)
    assert (found.labels is Y) == (y is not None)


def test_it_says_what_it_took() -> None:
    output = {"recon": RECON, "vq_loss": torch.stack([VQ, PART])}
    _, notes = losses(output)
    assert "task loss: mean squared error of recon against x" in notes
    assert "VQ loss: vq_loss (sum of its 2 values)" in notes
    _, notes = losses({"logits": LOGITS, "hidden": INDICES}, y=Y)
    assert "cross-entropy of logits against y" in notes
    assert "VQ loss: none found; the output has logits [6, 3], hidden [6, 2, 2]" in notes


def test_a_loss_by_sample_is_averaged_and_one_by_level_summed_whatever_the_batch_size() -> None:
    by_level, by_sample = torch.ones(4), torch.ones(6)
    model = Fake((RECON, INDICES, by_level.requires_grad_()))
    task = DefaultTask(model, {})
    for size in (6, 4):  # four samples, four levels: what the first batch showed stands
        model.output = (RECON[:size], INDICES, by_level)
        assert task.losses(model, {"x": X[:size]}).vq.item() == 4
    assert "VQ loss: output 2 (sum of its 4 values)" in " ".join(task.notes)
    found, notes = losses({"recon": RECON, "commit_loss": by_sample})
    assert float(found.vq) == 1
    assert "commit_loss (mean of its 6 values)" in notes


def test_wishes_win() -> None:
    output = {"logits": LOGITS, "recon": RECON, "vq_loss": VQ, "extra": {"a": PART, "b": VQ}}
    assert float(losses(output, y=Y, task_loss="mse")[0].task) == pytest.approx(float(MSE))
    assert losses(output, y=Y, task_loss="extra.a")[0].task.item() == 0.25
    assert losses(output, y=Y, vq_loss="extra")[0].vq.item() == 0.75


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"vq_loss": "gone"}, "--vq-loss gone: the model's output has no such term: the output has recon"),
        ({"task_loss": "gone"}, "--task-loss gone"),
        ({"task_loss": "extra"}, "is several outputs"),
        ({"task_loss": "ce"}, "cross-entropy needs integer labels y"),
    ],
)
def test_wishes_that_cannot_be(options: dict[str, str], says: str) -> None:
    with pytest.raises(UserError, match=says):
        losses({"recon": RECON, "extra": {"a": PART, "b": VQ}}, **options)


def test_no_task_loss_is_said_and_never_made_up() -> None:
    with pytest.raises(UserError, match=r"no task loss .* x float32 \[6, 1, 4, 4\]; the output has hidden"):
        losses({"hidden": torch.rand(6, 5)})


def test_a_reconstruction_of_the_same_width_as_the_classes_is_no_logits() -> None:
    x = torch.rand(6, 3)
    found, notes = losses(torch.rand(6, 3), x=x, y=Y)
    assert "mean squared error of output against x" in notes
    assert found.logits is None


def test_classes_at_every_position_first_or_last() -> None:
    y = torch.randint(0, 4, (6, 5))
    scores = torch.randn(6, 5, 4)
    expected = float(functional.cross_entropy(scores.reshape(-1, 4), y.reshape(-1)))
    for output in (scores, scores.movedim(-1, 1)):
        found, _ = losses({"logits": output}, y=y)
        assert float(found.task) == pytest.approx(expected)
        assert found.logits is None


def test_y_of_the_outputs_shape_is_the_target() -> None:
    y = torch.rand(6, 9)
    found, notes = losses({"forecast": y + 1}, y=y)
    assert float(found.task) == pytest.approx(1.0)
    assert "of forecast against y" in notes


def test_audio_may_lose_its_channel_axis_and_some_samples() -> None:
    x, audio = torch.rand(2, 1, 100), torch.rand(2, 96)
    found, _ = losses({"audio_values": audio}, x=x)
    assert float(found.task) == pytest.approx(float(functional.mse_loss(audio, x[:, 0, :96])))


def test_the_choice_of_training_stands_where_eval_gives_no_vq_loss() -> None:
    model = Fake({"recon": RECON, "vq_loss": VQ})
    task = DefaultTask(model, {})
    assert task.losses(model, {"x": X}).vq is not None
    model.output = {"recon": RECON}
    assert task.losses(model, {"x": X}).vq is None


def test_what_more_the_batch_holds_goes_to_the_parameter_of_its_name() -> None:
    class Masked(nn.Module):
        def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            return x * mask

    batch = {"x": X, "mask": torch.zeros(()), "unknown": torch.ones(3)}
    task = DefaultTask(Masked(), {})
    assert float(task.losses(Masked(), batch).task) == pytest.approx(float((X**2).mean()))


def test_a_double_x_becomes_the_models_type_and_integers_stay() -> None:
    seen = []

    class Asks(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(()))

        def forward(self, x: torch.Tensor) -> Any:
            seen.append(x.dtype)
            return {"loss": self.scale * 1}

    model = Asks()
    for x in (X.double(), INDICES):
        DefaultTask(model, {}).losses(model, {"x": x})
    assert seen == [torch.float32, torch.int64]


def test_flatten_names_every_tensor() -> None:
    deep = {"a": [VQ, {"b": PART}], "none": None, "text": "x", "number": 3}
    assert list(flatten(deep)) == ["a.0", "a.1.b"]
    assert list(flatten(VQ)) == ["output"]


def test_batches_of_a_file_with_and_without_splits() -> None:
    x, y = np.arange(10.0)[:, None], np.arange(10)
    plain = batches_of({"x": x, "y": y, "scale": np.ones(3)}, 4)
    assert set(plain) == {"train", "val"}
    for split in plain.values():
        assert [len(b["x"]) for b in split] == [4, 4, 2]
        assert torch.equal(torch.cat([b["y"] for b in split]), torch.from_numpy(y))
        assert all(b["scale"].shape == (3,) for b in split)
    positions = y % 3
    names = np.array(["train", "stop", "val"])[positions]
    for split in (positions, names):
        parts = batches_of({"x": x, "split": split})
        assert [sum(len(b["x"]) for b in parts[n]) for n in ("train", "stop", "val")] == [4, 3, 3]


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({"x": np.ones((3, 2)), "y": np.ones(4)}, r"x \[3, 2\] and y \[4\]"),
        ({"x": np.ones((0, 2))}, "x is empty"),
        ({"x": np.ones(())}, "x is empty"),
    ],
)
def test_batches_that_do_not_fit(arrays: Any, says: str) -> None:
    with pytest.raises(UserError, match=says):
        batches_of(arrays)


class Pixels(nn.Module):
    """Takes its input under a name of its own, as the models of transformers do."""

    def forward(self, pixel_values: torch.Tensor, mask: torch.Tensor | None = None, **more: Any) -> Any:
        assert mask is not None and not more
        return {"reconstruction": pixel_values * mask, "vq_loss": VQ}


def test_an_input_by_another_name_goes_to_the_model_by_that_name() -> None:
    arrays = {"mask": np.ones((6, 1, 1, 1), "f"), "pixel_values": X.numpy(), "file": np.array(["a"] * 6)}
    name = input_name(Pixels(), arrays)
    assert name == "pixel_values"
    batches = batches_of(arrays, 4, name)
    assert [{key: len(value) for key, value in batch.items()} for batch in batches["train"]] == [
        {"mask": 4, "pixel_values": 4},
        {"mask": 2, "pixel_values": 2},
    ]
    task = DefaultTask(Pixels(), batches, input_name=name)
    found = task.losses(task.model(), batches["train"][0])
    assert float(found.task) == 0.0
    assert task.notes[0].startswith("task loss: mean squared error of reconstruction against pixel_values")


def test_x_is_the_input_wherever_it_is() -> None:
    assert input_name(Pixels(), ["pixel_values", "x"]) == "x"


def test_a_batch_without_the_models_input_is_refused_with_the_names_that_it_takes() -> None:
    with pytest.raises(UserError, match=r"given is images, and its forward\(\) takes pixel_values, mask"):
        input_name(Pixels(), ["images"])
    with pytest.raises(UserError, match=r"pixel_values \[6\] and y \[5\]"):
        batches_of({"pixel_values": np.ones(6), "y": np.ones(5)}, name="pixel_values")
