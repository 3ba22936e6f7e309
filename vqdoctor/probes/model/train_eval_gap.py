"""A training batch's codes in train and in eval mode, and how much of the gap batch norms explain."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from vqdoctor.capture.call import FAILURES, Call
from vqdoctor.capture.layer import CapturedLayer, Change, watching
from vqdoctor.capture.reader import EXACT, Reader, Vectors
from vqdoctor.capture.vectors import rows
from vqdoctor.core.evidence import Evidence, TrainEvalGap, Unavailable
from vqdoctor.metrics.geometry import row_norms, spread
from vqdoctor.metrics.match import nearest
from vqdoctor.models.task import Batch
from vqdoctor.models.untouched import seed_all
from vqdoctor.probes.model._context import ModelContext
from vqdoctor.probes.model._gaps import by_layer
from vqdoctor.probes.model.data_match import AGREES, takes_nearest
from vqdoctor.probes.probe import Probe

SAMPLES = "the layer draws its codes at random in training, or its codes are not seen"


@dataclass(kw_only=True)
class _Run:
    """One batch in one mode.

    Attributes:
        codes: layer to its codes, int64 [N].
        calls: layer to its first call.
        loss: the task loss.
    """

    codes: Mapping[str, torch.Tensor]
    calls: Mapping[str, Call]
    loss: float


def measure(context: ModelContext) -> Iterator[Evidence | Unavailable]:
    """Yield, for every layer, how many codes are the same in both modes, unless it draws them at random."""
    measured: dict[str, TrainEvalGap] = {}
    if context.first_batches and context.mapped:
        measured = _measured(context, context.first_batches[0])
    yield from by_layer(context, TrainEvalGap, measured, SAMPLES, by_gradient=False)


def _measured(context: ModelContext, batch: Batch) -> dict[str, TrainEvalGap]:
    other = _run(context, context.copy(training=True), batch, context.seed + 1)
    drawn, noisy = _drawn(context, other)
    # a model that draws by logits of its own may add the noise before they are seen
    drawn |= {
        name for name, layer in context.mapped.items() if layer.inline and layer.view.lookup == "logits"
    }
    training = _run(context, context.copy(training=True), batch)
    evaluated = _run(context, context.copy(training=False), batch)
    noise = _batch_norm_noise(context, batch)
    unread = _unread(context, batch, training, evaluated)
    found = {}
    for name in training.calls.keys() & evaluated.calls.keys() & drawn:
        mixed = _mixed(context.layers[name].reader, name, training, evaluated)
        found.update({} if mixed is None else {name: mixed})
    for name in training.codes.keys() & evaluated.codes.keys() - drawn:
        reader, calls = context.layers[name].reader, (training.calls[name], evaluated.calls[name])
        if reader.given(calls[1]) is None and not takes_nearest(reader, calls[1]):
            continue
        same = _agreement(training.codes[name], evaluated.codes[name])
        if same is None:
            continue
        again = _agreement(training.codes[name], other.codes[name]) if name in other.codes else None
        blend, only_z_e = _blend(reader, *calls, noisy=name in noisy)
        found[name] = TrainEvalGap(
            layer=name,
            source="batch",
            sample_size=len(training.codes[name]),
            agreement=same,
            explained=noise.get(name, 1.0),
            repeated=1.0 if again is None else again,
            train_loss=training.loss,
            eval_loss=evaluated.loss,
            train_perplexity=_perplexity(training.codes[name]),
            eval_perplexity=_perplexity(evaluated.codes[name]),
            blend=blend,
            never_codes=only_z_e or name in unread,
            noise=_noise(reader, training.calls[name], other.calls.get(name)),
        )
    return found


def _mixed(reader: Reader, name: str, training: _Run, evaluated: _Run) -> TrainEvalGap | None:
    """Return the modes of a layer that draws what it puts out, where in train mode that consists of no codes.

    Which codes it draws is chance, and no gap: the nearest ones to its outputs count as explained.
    """
    calls = training.calls[name], evaluated.calls[name]
    blend, _ = _blend(reader, *calls, noisy=True)
    outputs = [found for call in calls if (found := _output(reader, call)) is not None]
    if blend is None or blend <= EXACT:
        return None
    codes = [torch.from_numpy(nearest(vectors, reader.view.codebook).indices) for vectors in outputs]
    same = _agreement(*codes)
    return TrainEvalGap(
        layer=name,
        source="batch",
        sample_size=len(calls[0].z_e),
        agreement=same or 0.0,
        explained=same or 0.0,
        train_loss=training.loss,
        eval_loss=evaluated.loss,
        train_perplexity=_perplexity(codes[0]),
        eval_perplexity=_perplexity(codes[1]),
        blend=blend,
    )


def _noise(reader: Reader, one: Call, other: Call | None) -> float | None:
    """Return the share of z_e's variance that another pass in train mode draws anew.

    Dropout in the layer itself draws after z_e: it is a share of p.
    """
    if other is None or other.z_e.shape != one.z_e.shape:
        return None
    inside = [inner.p for inner in one.module.modules() if isinstance(inner, _DropoutNd) and inner.p > 0]
    if inside:
        return max(inside)
    first, second = (_input(reader, call).astype(np.float64) for call in (one, other))
    apart = np.square(first - second).mean() / 2
    variance = np.mean([np.square(z - z.mean(axis=(0, 1))).mean() for z in (first, second)])
    return float(apart / variance) if variance > 0 else None


def _unread(context: ModelContext, batch: Batch, training: _Run, evaluated: _Run) -> set[str]:
    """Return the layers on whose z_q the task loss depends in eval mode alone, and not in train mode."""
    changed: set[str] = set()

    def again(*, train: bool) -> float:
        generator = torch.Generator().manual_seed(context.seed)  # its own, so that dropout draws the same

        def change(layer: CapturedLayer, call: Call) -> torch.Tensor:
            assert call.z_q is not None
            changed.add(layer.name)
            noise = torch.randn(call.z_q.shape, generator=generator).to(call.z_q)
            return call.z_q + noise * (1 + call.z_q.square().mean().sqrt())

        return _run(context, context.copy(training=train), batch, change=change).loss

    in_eval_alone = again(train=True) == training.loss and again(train=False) != evaluated.loss
    return changed if in_eval_alone else set()


def _run(
    context: ModelContext,
    model: nn.Module,
    batch: Batch,
    seed: int | None = None,
    change: Change | None = None,
) -> _Run:
    layers = context.on(model)
    seed_all(context.seed if seed is None else seed)
    with watching(layers, change) as watched, torch.no_grad():
        losses = context.task.losses(model, batch)
    calls = {layer.name: layer.calls(watched) for layer in layers}
    codes = {layer.name: c for layer in layers if (c := _codes(layer, calls[layer.name])) is not None}
    first = {name: found[0] for name, found in calls.items() if found}
    return _Run(codes=codes, calls=first, loss=float(losses.task))


def _codes(layer: CapturedLayer, calls: list[Call]) -> torch.Tensor | None:
    """Return the codes that the layer's first call shows, int64 [B, positions]; else those nearest to z_e."""
    given = layer.reader.given(calls[0]) if calls else None
    if given is not None or not calls:
        return given
    shown = layer.reader.codes(calls[0]) if layer.reader.has_codebook else None
    if shown is None:
        shown = layer.reader.nearest(_input(layer.reader, calls[0]))
    return None if shown is None else torch.from_numpy(shown)


def _agreement(one: torch.Tensor, other: torch.Tensor) -> float | None:
    """Return the share of equal codes among the unmasked ones; None if there are none."""
    if one.shape != other.shape:
        return None
    seen = (one >= 0) & (other >= 0)
    return float((one == other)[seen].float().mean()) if seen.any() else None


def _perplexity(codes: torch.Tensor) -> float:
    shares = codes[codes >= 0].bincount().double()
    shares = shares / shares.sum()
    return float(torch.exp(-torch.special.xlogy(shares, shares).sum()))


def _blend(reader: Reader, training: Call, evaluated: Call, *, noisy: bool) -> tuple[float | None, bool]:
    """Return how far the output in train mode is from codes, where that in eval mode consists of these.

    None too where the layer passes z_e on for some vectors, or noise of the size of the quantization error:
    the decoder then learns from vectors around each code.

    Args:
        reader: of the layer.
        training: its call in train mode.
        evaluated: its call in eval mode.
        noisy: whether the same z_e gives other outputs with another seed.

    Returns:
        the distance, and whether the output in train mode is z_e itself, of every vector.
    """
    in_train, in_eval = (_output(reader, call) for call in (training, evaluated))
    if in_train is None or in_eval is None or not reader.has_codebook or reader.head is not None:
        return None, False
    codebook = reader.view.codebook
    apart = spread(codebook)
    if not apart > 0 or _passes_z_e_on(reader, training, in_train, noisy=noisy):
        return None, False
    both = [nearest(vectors, codebook).vector_distance for vectors in (in_train, in_eval)]
    blended, single = (float(np.median(distance)) / apart for distance in both)
    if single > EXACT:
        return None, False
    z_e = _input(reader, training)
    if blended <= EXACT or z_e.size != in_train.size:
        return blended, False
    return blended, bool((row_norms(in_train - z_e.reshape(in_train.shape)) <= EXACT * apart).all())


def _input(reader: Reader, call: Call) -> Vectors:
    """Return the vectors of a call's z_e, [B, positions, D]."""
    vectors: Vectors = rows(call.z_e, reader.axis(call)).detach().float().cpu().numpy()
    return vectors


def _output(reader: Reader, call: Call) -> Vectors | None:
    """Return the vectors that a layer puts out, [N, D]; None unless finite and of the codes' size."""
    if call.z_q is None:
        return None
    vectors = rows(call.z_q, reader.axis(call)).float().cpu().numpy()
    fits = vectors.shape[-1] == reader.view.dim and np.isfinite(vectors).all()
    return vectors.reshape(-1, reader.view.dim) if fits else None


def _passes_z_e_on(reader: Reader, call: Call, output: Vectors, *, noisy: bool) -> bool:
    """Whether a layer that chooses the nearest codes puts out [N, D] what is as near to z_e as these are.

    So is a soft mixture of the codes around z_e. Without noise, an output is z_e itself for some vectors, or
    just as far from it as the code is (NSVQ's noise has that length); a mixture is at any distance.
    """
    z_e = _input(reader, call)
    given, closest = reader.given(call), reader.nearest(z_e)
    if closest is None or (given is not None and given.shape != closest.shape):
        return False
    vectors, chosen = z_e.reshape(output.shape), closest.reshape(-1)
    if given is not None and np.mean(given.flatten().cpu().numpy() == chosen) < AGREES:
        return False
    error = row_norms(vectors - reader.view.codebook[chosen])
    moved = row_norms(output - vectors)
    if np.median(moved) > (1 + EXACT) * np.median(error):
        return False
    itself, as_far = moved <= EXACT * error, np.abs(moved - error) <= EXACT * error
    return noisy or (not itself.all() and bool(np.mean(itself | as_far) >= AGREES))


def _drawn(context: ModelContext, run: _Run) -> tuple[set[str], set[str]]:
    """Ask each layer twice for the same z_e, with two seeds.

    Dropout in a layer, before its lookup, is not a way to draw codes.

    Returns:
        the layers that give other codes, or that cannot be asked; and those whose output is another one. Of a
        layer that gives no codes the output alone tells.
    """
    layers = {layer.name: layer for layer in context.on(context.copy(training=True))}
    drawn, noisy = set(context.mapped) - run.calls.keys(), set[str]()
    for name, call in run.calls.items():
        drawn.add(name)
        with contextlib.suppress(*FAILURES):
            reader = layers[name].reader
            twins = [_without_dropout(copy.deepcopy(layers[name].module).train()) for _ in range(2)]
            asked = [call.again(context.seed + n, module=twin) for n, twin in enumerate(twins)]
            one, other = (reader.given(answer) for answer in asked)
            same = _are_equal(asked[0].z_q, asked[1].z_q)
            if same if one is None and other is None else _are_equal(one, other):
                drawn.discard(name)
            if not same:
                noisy.add(name)
    return drawn, noisy


def _without_dropout(module: nn.Module) -> nn.Module:
    for inner in module.modules():
        if isinstance(inner, _DropoutNd):
            inner.eval()
    return module


def _are_equal(one: torch.Tensor | None, other: torch.Tensor | None) -> bool:
    """Whether both are there and hold the same numbers."""
    return one is not None and other is not None and torch.equal(one, other)


def _batch_norm_noise(context: ModelContext, batch: Batch) -> dict[str, float]:
    """Return how many codes are the same for half of a batch, with batch norms alone in train mode.

    The statistics of a half are noisier than those of the whole, so at least as much is explained.
    """
    halves = _halves(batch)
    if halves is None or not any(isinstance(m, _BatchNorm) for m in context.model.modules()):
        return {}
    whole, half = (_run(context, _only_batch_norms(context), part) for part in (batch, halves))
    found = {}
    for name in whole.codes.keys() & half.codes.keys():
        same = _agreement(whole.codes[name][: len(half.codes[name])], half.codes[name])
        if same is not None:
            found[name] = same
    return found


def _only_batch_norms(context: ModelContext) -> nn.Module:
    model = context.copy(training=False)
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            module.train()
    return model


def _halves(batch: Batch) -> Batch | None:
    """Return the first half of a batch of tensors; None where it has another form."""
    if isinstance(batch, torch.Tensor):
        return batch[: len(batch) // 2] if len(batch) > 3 else None
    if isinstance(batch, Mapping):
        parts = {key: _halves(value) for key, value in batch.items()}
        return None if any(part is None for part in parts.values()) else parts
    if type(batch) in (tuple, list):
        items = [_halves(value) for value in batch]
        return None if any(item is None for item in items) else type(batch)(items)
    return None


PROBE = Probe(kinds=(TrainEvalGap,), measure=measure, mode="both", needs_codebook=False)
