"""One training step of the task, its backward pass included: how often does it advance the EMA of a layer?"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any, NamedTuple

import torch
from torch import nn

from vqdoctor.capture.call import FAILURES, first_float
from vqdoctor.capture.decay import own_decay
from vqdoctor.capture.layer import CapturedLayer, Watched, watching
from vqdoctor.core.evidence import EmaAdvances
from vqdoctor.models.untouched import seed_all
from vqdoctor.probes.model._context import ModelContext
from vqdoctor.probes.model._gaps import each_layer
from vqdoctor.probes.probe import Missing

_APART = 1e-3
"""Least singular value of an EMA beside what a pass adds, both of length one: else they are the same."""
_DIGITS = 6
"""Digits of a ratio of two fits that are told: the last ones depend on where the numbers lie in memory."""
_FIT = 0.01
"""Largest part of a change of the counts that no decay explains: rounding, and no revival or second input."""


class _Advances:
    """Follows the calls of one layer: the z_e of each that changed the EMA counts.

    A call under checkpointing ends without its last hook, as soon as the backward pass has what it needs.
    """

    def __init__(self, layer: CapturedLayer) -> None:
        self._layer = layer
        self._begun: tuple[torch.Tensor, torch.Tensor] | None = None
        self.z_e: list[torch.Tensor] = []

    def begin(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        self.settle()
        given, counts = first_float((args, kwargs)), self._layer.stored("counts")
        if given is not None and counts is not None:
            self._begun = given.detach().clone(), counts.detach().clone()

    def settle(self, *_: Any) -> None:
        """Take the last call into account, which has ended or was broken off."""
        counts = self._layer.stored("counts")
        if self._begun is not None and counts is not None and not torch.equal(self._begun[1], counts):
            self.z_e.append(self._begun[0])
        self._begun = None

    @property
    def times(self) -> int:
        """The most calls that got the same z_e."""
        return max((sum(torch.equal(one, other) for other in self.z_e) for one in self.z_e), default=0)


def _free(parameter: torch.Tensor) -> None:
    parameter.grad = None


def measure(context: ModelContext) -> dict[str, EmaAdvances]:
    """Return, for every layer with EMA counts, how often one step advances them by the same vectors."""
    model = context.copy(training=True)
    layers = {name: layer.on(model) for name, layer in context.mapped.items() if "counts" in layer.tensors}
    if not layers:
        raise Missing("no layer stores EMA counts")
    seen: dict[str, _Advances] = {name: _Advances(layer) for name, layer in layers.items()}
    by_module: dict[nn.Module, list[_Advances]] = defaultdict(list)
    for name, layer in layers.items():
        by_module[layer.module].append(seen[name])
    seed_all(context.seed)
    with ExitStack() as stack:
        for module, advances in by_module.items():
            for one in advances:
                stack.callback(module.register_forward_pre_hook(one.begin, with_kwargs=True).remove)
                stack.callback(module.register_forward_hook(one.settle).remove)
        for parameter in model.parameters():
            if parameter.requires_grad:  # its gradient is freed at once: of a large model all take their room
                hook = parameter.register_post_accumulate_grad_hook(_free)  # type: ignore[no-untyped-call]
                stack.callback(hook.remove)
        try:
            losses = context.task.losses(model, context.first_batches[0])
            total = losses.task if losses.vq is None else losses.task + losses.vq
            if total.requires_grad:
                total.backward()  # type: ignore[no-untyped-call]
        except FAILURES as error:
            raise Missing(f"a training step fails ({type(error).__name__})") from error
    for one in seen.values():
        one.settle()
    updates = _updates(context)
    return {
        name: EmaAdvances(
            source="batch", sample_size=len(one.z_e), times=one.times, **updates[name]._asdict()
        )
        for name, one in seen.items()
        if one.z_e
    }


class _Update(NamedTuple):
    """How one pass in train mode changes an EMA; see `EmaAdvances`."""

    decay: float | None
    applied: float | None = None
    sums_over_counts: float | None = None
    sums_kept: float | None = None
    counts_kept: float | None = None


def _updates(context: ModelContext) -> dict[str, _Update]:
    """Return, for each layer, how a pass in train mode changes its EMA.

    Where one code has all vectors, or vectors that cancel, the weights do not show. Such layers are asked
    again with their codes on the batch. The times that a call applies the layer's decay are None where a
    second pass applies it another number of times: a decay that warms up does.
    """
    model = context.copy(training=True)
    layers = context.on(model)
    first, second = (_pass(context, model, layers) for _ in range(2))
    untold = [name for name, update in first.items() if update.sums_over_counts is None]
    placed = _on_the_batch(context, untold)
    return {
        name: update._replace(
            applied=update.applied if _alike(update.applied, second[name].applied) else None,
            sums_over_counts=placed.get(name, update.sums_over_counts),
        )
        for name, update in first.items()
    }


def _on_the_batch(context: ModelContext, names: Sequence[str]) -> dict[str, float | None]:
    """Return the weight in the sums over that in the counts of layers whose codes were placed on vectors.

    Each code is put on a vector of the first batch, with counts between half and one and a half of its even
    share, so that the rows of the EMA and those of the batch differ.
    """
    model, generator = context.copy(training=True), torch.Generator().manual_seed(context.seed)
    layers = [layer for layer in context.on(model) if layer.name in names and layer.view.writable]
    seed_all(context.seed)
    with watching(layers) as watched, torch.no_grad():
        if layers:
            context.task.losses(model, context.first_batches[0])
    for layer in layers:
        vectors, (_, sums, codes) = layer.vectors(watched), _stored(layer)
        if vectors is not None and codes is not None and sums is not None and vectors.isfinite().all():
            drawn = torch.randint(len(vectors), (layer.num_codes,), generator=generator)
            counts = (0.5 + torch.rand(layer.num_codes, generator=generator)) * len(vectors) / len(codes)
            layer.write(torch.arange(layer.num_codes), vectors[drawn.to(vectors.device)], counts)
    found = _pass(context, model, layers) if layers else {}
    return {name: update.sums_over_counts for name, update in found.items()}


def _alike(one: float | None, other: float | None) -> bool:
    return one is not None and other is not None and math.isclose(one, other, rel_tol=_FIT)


def _pass(context: ModelContext, model: nn.Module, layers: Sequence[CapturedLayer]) -> dict[str, _Update]:
    """Run the first batch in train mode; return how it changed the EMA of each layer."""
    before = {layer.name: _stored(layer) for layer in layers}
    seed_all(context.seed)
    with watching(layers) as watched, torch.no_grad():
        context.task.losses(model, context.first_batches[0])
    found: dict[str, _Update] = {}
    for layer in layers:
        (counts, sums, codes), (new_counts, new_sums, _) = before[layer.name], _stored(layer)
        decay, chosen = own_decay(layer), layer.counts(watched, codes)
        found[layer.name] = _Update(decay)
        if chosen is None or counts is None or new_counts is None or counts.shape != chosen.shape:
            continue
        measured = None if decay is None else _decay(counts, new_counts, chosen)
        applied = None if measured is None or decay is None else math.log(measured) / math.log(decay)
        added = _batch_sums(layer, watched, codes)
        found[layer.name] = _Update(decay, applied)
        if sums is not None and new_sums is not None and added is not None and added.shape == sums.shape:
            rows = chosen > 0  # the others may be revived by the same pass
            by_counts = (counts[rows], new_counts[rows], chosen[rows])
            by_sums = (sums[rows], new_sums[rows], added[rows])
            found[layer.name] = _Update(decay, applied, *_compared(by_counts, by_sums, measured))
    return found


_Stored = tuple[torch.Tensor | None, torch.Tensor | None, torch.Tensor | None]


def _stored(layer: CapturedLayer) -> _Stored:
    """Return copies of EMA counts [K] and sums [K, D], float64, and of the codes [K, D], float32."""
    stored = layer.codebook
    counts, sums = (None if t is None else t.double().cpu().clone() for t in (stored.counts, stored.sums))
    has_codes = stored.codes is not None or (counts is not None and sums is not None)
    return counts, sums, layer.codes() if has_codes else None


def _batch_sums(layer: CapturedLayer, watched: Watched, codes: torch.Tensor | None) -> torch.Tensor | None:
    """Return the sums [K, D] of the vectors that chose each of the codes in a pass; None where not seen."""
    vectors, chosen = layer.vectors(watched), layer.chosen(watched, codes)
    if vectors is None or chosen is None or len(vectors) != len(chosen):
        return None
    kept = chosen >= 0
    sums = torch.zeros(layer.num_codes, vectors.shape[1], dtype=torch.float64)
    return sums.index_add_(0, chosen[kept].cpu(), vectors[kept].double().cpu())


def _decay(before: torch.Tensor, after: torch.Tensor, chosen: torch.Tensor) -> float | None:
    """Return d of after = d before + (1 - d) chosen, each [K]; None where no d fits."""
    step = before - chosen
    size = float(step @ step)
    if not size > 0:
        return None
    d = float(step @ (after - chosen)) / size
    return d if 0 < d < 1 and _fits((before, after, chosen), d, 1 - d) else None


Change = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
"""A tensor before a pass and after it, and the pass's own share: counts or sums."""


def _compared(
    counts: Change, sums: Change, decay: float | None
) -> tuple[float | None, float | None, float | None]:
    """Return by how much a pass weighs more in the sums than in the counts, and what these keep.

    These are b and a of after = a before + b batch, by least squares; None where one does not fit. Where one
    of them cannot tell a from b, as with a single code, it has the memory a of the other, or else the counts'
    decay; its own is then None.
    """
    of_sums, of_counts = (_weights(*(t.flatten() for t in change)) for change in (sums, counts))
    memory = of_sums[0] if of_sums else of_counts[0] if of_counts else decay
    if memory is None:
        return None, None, None
    in_sums = of_sums[1] if of_sums else _weight(sums, memory)
    in_counts = of_counts[1] if of_counts else _weight(counts, memory)
    ratio = in_sums / in_counts if in_sums is not None and in_counts is not None and in_counts > 0 else None
    return _told(ratio), _told(of_sums and of_sums[0]), _told(of_counts and of_counts[0])


def _told(value: float | None) -> float | None:
    """Return a fitted number without its last digits."""
    return None if value is None else float(f"{value:.{_DIGITS}g}")


def _weight(change: Change, memory: float) -> float | None:
    """Return b of after = a before + b batch for a known a; None where it does not fit."""
    before, after, batch = change
    size = float(batch.square().sum())
    if not size > 0:
        return None
    b = float(((after - memory * before) * batch).sum()) / size
    return b if _fits(change, memory, b) else None


def _fits(change: Change, a: float, b: float) -> bool:
    before, after, batch = change
    return float((a * before + b * batch - after).norm()) <= _FIT * float((after - before).norm())


def _weights(before: torch.Tensor, after: torch.Tensor, batch: torch.Tensor) -> tuple[float, float] | None:
    """Return a and b of after = a before + b batch, each [n]; None where they do not fit or agree."""
    known = torch.stack([before, batch], dim=1)
    sizes = known.norm(dim=0)
    if len(after) < 3 or not bool((sizes > 0).all()):
        return None
    if float(torch.linalg.svdvals(known / sizes)[-1]) < _APART:
        return None
    a, b = torch.linalg.lstsq(known, after[:, None]).solution.flatten().tolist()
    return (a, b) if _fits((before, after, batch), a, b) else None


PROBE = each_layer(EmaAdvances, measure, "a training step does not change its EMA counts", mode="train")
