from __future__ import annotations

import itertools
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from small_training import CPU, Digits, reference_layer
from vector_quantize_pytorch.vector_quantize_pytorch import rotate_to

from vqdoctor.capture.layer import CapturedLayer, watching
from vqdoctor.capture.placing import place_codes
from vqdoctor.capture.reader import Reader
from vqdoctor.core.levels import Confidence
from vqdoctor.layouts.view import QuantizerView
from vqdoctor.metrics.calibration import expected_calibration_error, softmax
from vqdoctor.training.evaluate import compared
from vqdoctor.training.revival import Revival
from vqdoctor.training.splits import HELD_BACK, Splits, Stretches
from vqdoctor.training.start import leading_to, restart
from vqdoctor.vq.estimators import rotation, straight_through


def test_the_rotation_agrees_with_vector_quantize_pytorch() -> None:
    z_e, z_q = torch.randn(64, 8, requires_grad=True), torch.randn(64, 8)
    cotangent = torch.randn(64, 8)
    ours, theirs = rotation(z_e, z_q, 1), rotate_to(z_e, z_q)
    assert torch.allclose(ours, z_q, atol=1e-6)
    assert torch.allclose(ours, theirs, atol=1e-5)
    found, wanted = (torch.autograd.grad(out, z_e, cotangent)[0] for out in (ours, theirs))
    assert torch.allclose(found, wanted, atol=1e-5)


def test_the_straight_through_estimator_copies_the_gradient() -> None:
    z_e, z_q, cotangent = torch.randn(5, 4, requires_grad=True), torch.randn(5, 4), torch.randn(5, 4)
    out = straight_through(z_e, z_q)
    assert torch.allclose(out, z_q)
    assert torch.equal(torch.autograd.grad(out, z_e, cotangent)[0], cotangent)


def test_written_codes_stay_through_the_next_update_of_the_ema() -> None:
    task = Digits(straight_through=True)
    model = task.model()
    layer = reference_layer(model)
    rows, codes = torch.tensor([3, 9]), torch.full((2, 8), 50.0)  # nothing is near: nothing moves them
    layer.write(rows, codes, 4.0)
    assert torch.equal(layer.codes()[rows], codes)
    model.train()
    task.losses(model, next(iter(task.batches("train"))))
    assert torch.allclose(layer.codes()[rows], codes, rtol=1e-3)


def test_writing_clears_what_the_optimizer_remembers_of_those_rows_alone() -> None:
    codebook = torch.nn.Parameter(torch.randn(32, 8))
    optimizer = torch.optim.Adam([codebook])
    codebook.grad = torch.ones_like(codebook)
    optimizer.step()
    layer = reference_layer(Digits().model())
    model = torch.nn.Module()
    model.register_parameter("codes", codebook)
    live = CapturedLayer(view=layer.view, model=model, tensors={"codebook": "codes"}, reader=layer.reader)
    live.write(torch.tensor([5]), torch.zeros(1, 8), optimizer=optimizer)
    moments = optimizer.state[codebook]["exp_avg"]
    assert moments[5].abs().sum() == 0
    assert (moments[torch.arange(32) != 5] != 0).all()


def test_revival_moves_the_dead_onto_the_batch_and_never_all_at_once() -> None:
    task = Digits()
    model = task.model().train()
    layer = reference_layer(model)
    with torch.no_grad():
        model.vq.set_codes(torch.full((32, 8), 1e3), torch.ones(32))
        batch = next(iter(task.batches("train")))
        model.vq.embedding[0] = 0.0
    revival = Revival(layer=layer, threshold=0.1)
    optimizer = torch.optim.Adam(model.parameters())
    model.eval()
    for _ in range(5):
        with torch.no_grad(), watching((layer,)) as watched:
            task.losses(model, batch)
        vectors = layer.vectors(watched)
        revival.after_step(watched, optimizer, torch.Generator().manual_seed(0))
        if revival.revived:
            break
    assert revival.revived == 31
    assert torch.equal(model.vq.embedding[0], torch.zeros(8))
    distances = torch.cdist(model.vq.embedding[1:], vectors).amin(1)
    assert torch.allclose(distances, torch.zeros(31), atol=1e-3)


class Chosen:
    """A layer of 32 codes that chooses the codes it is told, eight of each."""

    num_codes = 32

    def __init__(self) -> None:
        self.view = SimpleNamespace(writable=True)
        self.chosen: list[int] = []

    def counts(self, _: Any, mask: None = None) -> torch.Tensor:
        return torch.bincount(torch.tensor(self.chosen).repeat_interleave(8), minlength=32).double()


def test_the_running_usage_is_an_ema_over_one_window() -> None:
    """Its weight is 2 / (span + 1), as in every EMA of a span: here 16 vectors a code, in batches of 64."""
    layer = Chosen()
    revival = Revival(layer=layer, threshold=0.1)  # type: ignore[arg-type]
    span, expected = 16 * 32 / 64, torch.zeros(32, dtype=torch.float64)
    for step in range(6):
        layer.chosen = list(range(step, step + 8))
        revival.after_step(None, None, torch.Generator())  # type: ignore[arg-type]
        weight = 2 / (span + 1) if step else 1.0
        expected = expected * (1 - weight) + layer.counts(None) * weight
        assert revival.usage is not None
        assert torch.allclose(revival.usage, expected)
    assert float(expected[0]) > 1.0  # chosen in the first batch alone, and not forgotten


def test_placed_codes_lie_in_the_data_with_the_counts_of_a_batch() -> None:
    task = Digits()
    model = task.model()
    layer = reference_layer(model)
    splits = Splits(task, CPU)
    optimizer = torch.optim.Adam(model.parameters())
    generator = torch.Generator().manual_seed(0)
    left = place_codes(model, task, splits.in_order, (layer,), optimizer, generator, lambda _: None)
    assert left == {}
    with torch.no_grad(), watching((layer,)) as watched:
        task.losses(model.eval(), next(iter(splits.in_order())))
    vectors = layer.vectors(watched)
    chosen = layer.counts(watched)
    assert float((chosen > 0).double().mean()) > 0.5
    assert float(torch.cdist(vectors, model.vq.embedding).amin(1).mean()) < float(vectors.std()) * 4
    assert float(model.vq.ema_cluster_size.sum()) == pytest.approx(len(vectors), rel=0.05)


class Projected(torch.nn.Module):
    """A level as DAC writes it: a map to the codebook's dimension, a method that looks up, and a map back."""

    def __init__(self, dim: int, codes: int) -> None:
        super().__init__()
        self.in_proj, self.out_proj = torch.nn.Conv1d(dim, 3, 1), torch.nn.Conv1d(3, dim, 1)
        self.codebook = torch.nn.Embedding(codes, 3)

    def decode_latents(self, latents: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        indices = torch.cdist(latents.movedim(1, -1), self.codebook.weight).argmin(-1)
        return self.codebook(indices).movedim(-1, 1), indices

    def forward(self, z_e: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        latents = self.in_proj(z_e)
        z_q, indices = self.decode_latents(latents)
        return self.out_proj(straight_through(latents, z_q)), indices


def test_the_vectors_of_a_projected_level_are_those_that_it_looks_up() -> None:
    """A retraining neither placed nor revived the codes of any DAC: it saw z_e of the wrong dimension."""
    level = Projected(dim=8, codes=16)
    model = torch.nn.ModuleDict({"vq": level})
    view = QuantizerView(
        name="vq",
        layout="dac",
        confidence=Confidence.HIGH,
        num_codes=16,
        dim=3,
        keys={"codebook": "vq.codebook.weight"},
        smoothing=0.0,
        load_codebook=lambda: level.codebook.weight.detach().numpy(),
    )
    found = CapturedLayer(view=view, model=model, tensors=view.keys, reader=Reader(view=view), path="vq")
    layer, z_e = replace(found, lookup_path="vq", gap="", maps=True), torch.randn(4, 8, 25)
    with torch.no_grad(), watching((layer,)) as watched:
        _, indices = level(z_e)
    vectors = layer.vectors(watched)
    assert vectors is not None and vectors.shape == (100, 3)
    assert torch.allclose(vectors, level.in_proj(z_e).movedim(1, -1).flatten(0, 1))
    assert torch.equal(torch.cdist(vectors, level.codebook.weight).argmin(-1), indices.flatten())


def test_a_fresh_encoder_is_all_that_z_e_depends_on_and_nothing_else() -> None:
    task = Digits()
    model = task.model()
    before = {name: t.clone() for name, t in model.state_dict().items()}
    layer = reference_layer(model)
    batch = next(iter(task.batches("train")))
    restart(model, task, batch, (layer,), "fresh-encoder", seed=5)
    changed = {name for name, t in model.state_dict().items() if not torch.equal(t, before[name])}
    assert changed == {name for name in before if name.startswith("encoder.")}
    restart(model, task, batch, (layer,), "scratch", seed=5)
    torch.manual_seed(5)
    fresh = task.model().state_dict()
    assert all(torch.equal(t, fresh[name]) for name, t in model.state_dict().items())


def test_what_leads_to_z_e_is_asked_without_a_trace() -> None:
    """The pass runs in train mode, in which an EMA moves its codes: here an exchanged parameter."""
    task = Digits()
    model = task.model()
    layer = reference_layer(model)
    codes = torch.nn.Parameter(model.vq.embedding.clone(), requires_grad=False)
    del model.vq.embedding
    model.vq.embedding = codes

    def exchange(*_: object) -> None:
        model.vq.embedding = torch.nn.Parameter(model.vq.embedding + 1.0, requires_grad=False)

    hook = model.vq.register_forward_hook(exchange)
    before = {name: t.clone() for name, t in model.state_dict().items()}
    names = leading_to(model, task, next(iter(task.batches("train"))), (layer,))
    hook.remove()
    assert names == {name for name in before if name.startswith("encoder.")}
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())


class Numbers:
    """Batches that are numbers, without a stop split unless it is asked for."""

    def __init__(self, train: int, stop: int = 0) -> None:
        self.sizes = {"train": train, "stop": stop, "val": 2}

    def batches(self, split: str) -> Any:
        return range(self.sizes[split])


@pytest.mark.parametrize("size", [3, HELD_BACK, 37])
def test_a_tenth_is_held_back_where_there_is_no_stop_split(size: int) -> None:
    splits = Splits(Numbers(size), CPU)
    train, stop = list(splits.train(0)), list(splits.stop())
    assert sorted([*train, *stop]) == list(range(size))
    assert len(stop) == size // HELD_BACK
    assert splits.has_stop == (size >= HELD_BACK)


def test_a_stop_split_of_the_task_is_used_and_nothing_held_back() -> None:
    splits = Splits(Numbers(20, stop=3), CPU)
    assert (len(list(splits.train(0))), list(splits.stop()), list(splits.val())) == (20, [0, 1, 2], [0, 1])
    assert list(splits.stop(2)) == [0, 1]


class Answering:
    """Batches of tensors; "stop" is answered with the split that a plain `if` falls through to."""

    def __init__(self, stop: str, val: int = 100) -> None:
        self.stop, self.val = stop, val

    def batches(self, split: str) -> Any:
        start = {"train": 0, "val": self.val, "own": 200}[self.stop if split == "stop" else split]
        return [(torch.arange(4.0) + start + number, torch.tensor(number)) for number in range(20)]


def test_a_stop_split_that_is_another_split_is_none() -> None:
    for stop in ("val", "train"):
        splits = Splits(Answering(stop), CPU)
        assert splits.repeats and splits.holds_back
        assert [float(x[0]) for x, _ in splits.stop()] == [9.0, 19.0], "held back from train"
        assert len(list(splits.train(0))) == 18
    own = Splits(Answering("own"), CPU)
    assert not own.repeats and len(list(own.stop())) == len(list(own.train(0))) == 20
    assert not Splits(Answering("val", val=0), CPU).repeats, "one split serves for all"


class Held:
    """A val split of one batch."""

    def __init__(self, *tensors: torch.Tensor) -> None:
        self.tensors = tensors

    def batches(self, split: str) -> Any:
        return [self.tensors] if split == "val" else []


def test_the_digest_of_the_data_tells_other_labels_values_and_sizes_and_no_last_digits() -> None:
    x, y = torch.linspace(0.1, 0.9, 8), torch.arange(8)
    same = Splits(Held(x, y), CPU).fingerprint
    assert Splits(Held(x + 1e-7, y), CPU).fingerprint == same
    others = [Held(x, y.flip(0)), Held(x + 0.1, y), Held(x[:7], y[:7]), Held(x.bfloat16(), y), Held(x)]
    assert same not in {Splits(other, CPU).fingerprint for other in others}


def test_a_stretch_goes_on_where_the_one_before_it_ended() -> None:
    splits = Splits(Numbers(7), CPU)
    one, other = Stretches(splits, seed=3), Stretches(splits, seed=3)
    drawn = [list(one.of(number, 3)) for number in range(7)]
    assert [len(stretch) for stretch in drawn] == [3] * 7
    flat = [batch for stretch in drawn for batch in stretch]
    assert [sorted(flat[at : at + 7]) for at in (0, 7, 14)] == [list(range(7))] * 3, "pass after pass"
    assert list(other.of(4, 3)) == drawn[4], "taken up where it was"
    next(one.of(7, 3))  # broken off
    assert list(one.of(2, 3)) == drawn[2] and list(one.of(3, 3)) == drawn[3]
    assert sorted(one.of(0, 0)) == list(range(7)), "a whole pass"


def test_holding_back_looks_at_no_more_batches_than_it_must() -> None:
    class Endless(Numbers):
        def batches(self, split: str) -> Any:
            return itertools.count() if split == "train" else range(self.sizes[split])

    assert Splits(Endless(0), CPU).holds_back


def test_two_models_are_compared_on_the_same_samples_alone() -> None:
    labels = np.zeros(5, np.int64)
    right, without = np.array([1, 1, 1, 0, 0], bool), np.array([1, 0, 0, 1, 0], bool)
    scores, others = (
        np.stack([hit * 2.0, ~hit * 2.0], axis=1).astype(np.float32) for hit in (right, without)
    )
    paired = compared(scores, others, labels)
    assert paired is not None
    assert (paired.samples, paired.gained, paired.lost) == (5, 2, 1)
    assert paired.difference == pytest.approx(right.mean() - without.mean())
    assert paired.low < paired.difference < paired.high
    assert paired.ece_low is not None and paired.ece_high is not None
    own, other = (expected_calibration_error(softmax(s), labels) for s in (scores, others))
    assert paired.ece_low < own - other < paired.ece_high
    assert compared(scores, others[:4], labels) is None


def test_a_frozen_part_keeps_its_values_in_a_new_model_and_an_ema_codebook_does_not() -> None:
    """A pretrained backbone has its weights from the file alone: a random one learns nothing."""
    task = Digits()
    model = task.model()
    layer = reference_layer(model)
    batch = next(iter(task.batches("train")))
    first = next(name for name, _ in model.encoder.named_parameters()).partition(".")[0]
    for parameter in model.encoder.get_submodule(first).parameters():
        parameter.requires_grad_(False)
    before = {name: t.clone() for name, t in model.state_dict().items()}
    kept = {name for name in before if name.startswith(f"encoder.{first}.")}
    restart(model, task, batch, (layer,), "scratch", seed=5)
    torch.manual_seed(5)
    fresh = task.model().state_dict()
    after = model.state_dict()
    assert {name for name, t in after.items() if torch.equal(t, before[name])} >= kept
    assert all(torch.equal(t, fresh[name]) for name, t in after.items() if name not in kept)
    assert any(name.startswith("vq.") for name in after) and not any(n.startswith("vq.") for n in kept)
