"""One interval of a layer's training: the trace's line, and the evidence for the checks."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vqdoctor.capture.live import LayerStep
from vqdoctor.capture.vectors import rows
from vqdoctor.core.ema import ema_window
from vqdoctor.core.evidence import (
    ACTIVE_SHARE,
    CountsUsage,
    EncoderSpread,
    Evidence,
    NonFinite,
    Usage,
)
from vqdoctor.core.frozen import frozen
from vqdoctor.core.trace import Interval
from vqdoctor.layouts.live_rows import never_written
from vqdoctor.metrics.entropy import plug_in_entropy
from vqdoctor.metrics.perplexity import ema_interval
from vqdoctor.probes._usage import usage_from_indices
from vqdoctor.probes.file.usage import without_start
from vqdoctor.probes.model._forwards import decay_of
from vqdoctor.probes.model.ema_relation import arrays_of, relation_of
from vqdoctor.probes.probe import Missing

JUMP = 0.5
"""A code has jumped when it travels over half the spread of z_e, and this many times as far as the median."""
JUMPS = 5.0


@dataclass(kw_only=True, eq=False)
class LayerMemory:
    """A layer's chosen codes in the light steps of an interval, and where things were at its start.

    Attributes:
        codes: the codes of each step, int64 [N].
        groups: the sample of each of them, int64 [N].
        mean: mean z_e of the interval before, float32 [D]; None before the first.
        table: codes at the end of the interval before, float32 [K, D].
        step: the step of that interval's end.
        next_look: the step from which on the codebook is compared with its EMA again, at doubling distances.
    """

    codes: list[NDArray[np.int64]] = field(default_factory=list)
    groups: list[NDArray[np.int64]] = field(default_factory=list)
    mean: torch.Tensor | None = None
    table: torch.Tensor | None = None
    step: int = 0
    next_look: int = 0
    _samples: int = 0

    def note(self, seen: LayerStep) -> None:
        """Keep the codes of a step; those of masked positions are none."""
        if seen.chosen is None or not seen.chosen.numel():
            return
        codes = seen.chosen.cpu().numpy()
        samples = seen.samples if seen.samples and len(codes) % seen.samples == 0 else len(codes)
        of = np.repeat(np.arange(samples), len(codes) // samples)
        kept = codes >= 0
        self.add(*(codes, of) if kept.all() else (codes[kept], of[kept]))

    def add(self, codes: NDArray[np.integer[Any]], samples: NDArray[np.integer[Any]]) -> None:
        """Keep codes [N] of samples [N] that are numbered from 0, all of them new."""
        if len(codes):
            self.codes.append(codes.astype(np.int64))
            self.groups.append(samples.astype(np.int64) + self._samples)
            self._samples += int(samples.max()) + 1

    def chosen(self) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Return the codes of the interval so far [N], and the sample of each [N]."""
        none = np.zeros(0, dtype=np.int32)
        codes, samples = (np.concatenate([none, *parts]) for parts in (self.codes, self.groups))
        return codes.astype(np.int32), samples.astype(np.int32)

    def forget(self) -> None:
        """Forget the codes of the interval."""
        self.codes, self.groups, self._samples = [], [], 0

    def usage(self, seen: LayerStep) -> Usage | None:
        """Return the usage of the interval, and forget its codes; None where they are unknown."""
        codes, groups = self.codes, self.groups
        self.forget()
        if not sum(map(len, codes)):
            return None
        view = seen.layer.view
        usage = usage_from_indices(
            np.concatenate(codes),
            view.num_codes,
            layer=view.name,
            groups=np.concatenate(groups),
            histogram=True,
        )
        return usage if view.keys else usage.replace(implicit=True)


@frozen
class Measured:
    """A layer at the end of an interval: the trace's line, the evidence, and the usage [K]."""

    interval: Interval
    evidence: tuple[Evidence, ...]
    histogram: tuple[float, ...] = ()


@torch.no_grad()
def measure(
    seen: LayerStep,
    memory: LayerMemory,
    step: int,
    losses: Mapping[str, float | None],
    above: LayerStep | None = None,
) -> Measured:
    """Measure a layer at the end of an interval.

    Args:
        seen: the layer in the interval's last step.
        memory: what is known of the steps before; it is brought up to this step.
        step: the step.
        losses: "task_loss" and "vq_loss" as the loop told them.
        above: the level of the stack before this one.
    """
    usage = memory.usage(seen)
    z_e = _vectors(seen, seen.call.z_e)
    table = seen.layer.codes() if seen.layer.stored() is not None else None
    sizes = _sizes(seen, z_e, memory, step, above)
    if table is not None:
        sizes |= _moves(table, seen, memory, sizes["spread"])
    # one look at the device for all of them
    values = torch.stack([size.float() for size in sizes.values()]).tolist()
    figures = dict(zip(sizes, values, strict=True))
    memory.mean, memory.table, memory.step = z_e.mean(0), table, step
    evidence = (
        *_evidence(seen.layer.name, usage, z_e, figures),
        *_ema_evidence(seen, table, usage, memory, step),
    )
    known = {name: value for name, value in figures.items() if math.isfinite(value)}
    known |= {name: value for name, value in losses.items() if value is not None}
    interval = _with_counts(_line(seen.layer.name, step, len(z_e), known, usage), seen.layer.codebook.counts)
    return Measured(interval=interval, evidence=evidence, histogram=usage.histogram if usage else ())


def _line(name: str, step: int, vectors: int, known: Mapping[str, float], usage: Usage | None) -> Interval:
    """Return the trace's line of the finite figures and the usage."""
    arrived, revived = known.get("at_output"), known.get("revived")
    line = Interval(
        step=step,
        layer=name,
        vectors=vectors,
        code_norm=known.get("code_norm"),
        z_e_norm=known.get("z_e_norm"),
        code_move=known.get("code_move"),
        z_e_move=known.get("z_e_move"),
        revived=None if revived is None else int(revived),
        error=known.get("error"),
        gradient=known["at_input"] / arrived if arrived and "at_input" in known else None,
        task_loss=known.get("task_loss"),
        vq_loss=known.get("vq_loss"),
        level_correlation=known.get("level_correlation"),
    )
    if usage is None:
        return line
    return replace(
        line,
        vectors=usage.sample_size,
        perplexity=usage.perplexity,
        perplexity_low=usage.perplexity_low,
        perplexity_high=usage.perplexity_high,
        used=usage.used,
        active=usage.active,
        max_share=usage.max_share,
    )


def _vectors(seen: LayerStep, tensor: torch.Tensor) -> torch.Tensor:
    """Return the vectors of a layer's input or output, float32 [N, D]."""
    return rows(tensor.detach(), seen.layer.reader.axis(seen.call)).flatten(0, 1).float()


def _sizes(
    seen: LayerStep, z_e: torch.Tensor, memory: LayerMemory, step: int, above: LayerStep | None
) -> dict[str, torch.Tensor]:
    """Return the figures of z_e, z_q and the gradients, still on the device."""
    mean = z_e.mean(0)
    spread = (z_e - mean).square().sum(1).mean().sqrt()
    sizes = {"z_e_norm": z_e.square().sum(1).mean().sqrt(), "spread": spread}
    if memory.mean is not None:
        sizes["z_e_move"] = (mean - memory.mean).norm() / spread / max(step - memory.step, 1)
    assert seen.call.z_q is not None
    z_q = _vectors(seen, seen.call.z_q)
    if z_q.shape == z_e.shape:
        sizes["error"] = (z_q - z_e).square().sum(1).mean() / spread.square()
    if above is not None and above.call.z_q is not None:
        upper = _vectors(above, above.call.z_q)
        if upper.shape == z_q.shape:
            sizes["level_correlation"] = torch.cosine_similarity(upper, z_q, dim=1).mean()
    if seen.at_output:
        sizes["at_output"] = torch.stack(seen.at_output).sum().sqrt()
        squares = torch.stack(seen.at_input) if seen.at_input else z_e.new_zeros(1)
        sizes["at_input"] = squares.sum().sqrt()
    if seen.losses:
        sizes["vq_loss"] = torch.stack([loss.detach().float().sum() for loss in seen.losses]).sum()
    return sizes


def _moves(
    table: torch.Tensor, seen: LayerStep, memory: LayerMemory, spread: torch.Tensor
) -> dict[str, torch.Tensor]:
    """Return the size of the codes and how far they went, still on the device."""
    sizes = {"code_norm": table.square().sum(1).mean().sqrt()}
    if seen.before is not None:
        sizes["code_move"] = (table - seen.before).square().sum(1).mean().sqrt() / spread
    if memory.table is not None:
        way = (table - memory.table).norm(dim=1)
        sizes["revived"] = ((way > JUMP * spread) & (way > JUMPS * way.median())).sum()
    return sizes


def _with_counts(line: Interval, counts: torch.Tensor | None) -> Interval:
    """Return a line with what the EMA counts [K] say."""
    values = None if counts is None else counts.double().cpu().numpy()
    if values is None or not np.isfinite(values).all() or values.min() < 0 or values.sum() <= 0:
        return line
    active = int((values > ACTIVE_SHARE * values.mean()).sum())
    return replace(line, counts_perplexity=float(np.exp(plug_in_entropy(values))), counts_active=active)


def _evidence(
    name: str, usage: Usage | None, z_e: torch.Tensor, figures: Mapping[str, float]
) -> Iterator[Evidence]:
    """Yield the evidence of an interval: the usage, the spread of z_e, and what is not finite."""
    if usage is not None:
        yield usage
    broken = [tensor for tensor, size in _SIZE.items() if not math.isfinite(figures.get(size, 0.0))]
    yield NonFinite(
        layer=name, source="batch", sample_size=z_e.numel(), tensors=tuple(broken), tensor_count=len(broken),
        nan=len(broken),
    )  # fmt: skip
    norm, spread = figures["z_e_norm"], figures["spread"]
    if math.isfinite(spread) and math.isfinite(norm):
        yield EncoderSpread(
            layer=name, source="batch", sample_size=len(z_e), output_spread=spread / norm if norm else 0.0
        )


def _ema_evidence(
    seen: LayerStep, table: torch.Tensor | None, usage: Usage | None, memory: LayerMemory, step: int
) -> Iterator[Evidence]:
    """Yield the perplexity of the EMA counts and, at doubling distances, the codes' relation to the EMA.

    A forward pass of the training has just written the codes; so those that it chose are their means by the
    update's own rule.
    """
    counts, before = seen.layer.codebook.counts, seen.counts_before
    if table is None or seen.before is None or counts is None or before is None:
        return
    now, then = (each.double().cpu().numpy().flatten() for each in (counts, before))
    if len(now) != seen.layer.num_codes or never_written(now) or np.array_equal(now, then):
        return  # the layer has counts and does not use them
    claimed = _claimed(seen, now, decay_of(then, now), step)
    if claimed is not None:
        yield claimed
    if step < memory.next_look or usage is None or torch.equal(table, seen.before):
        return
    memory.next_look = 2 * step
    arrays = arrays_of(seen.layer)
    chosen = set(np.flatnonzero(usage.histogram).tolist())
    relation = None if arrays is None else relation_of(seen.layer.view, arrays, chosen)
    if relation is not None:
        yield relation


def _claimed(
    seen: LayerStep, counts: NDArray[np.float64], decay: float | None, step: int
) -> CountsUsage | None:
    """Return the perplexity of the EMA counts [K]; None while they still are their start values.

    Args:
        seen: the layer.
        counts: its counts.
        decay: of the EMA, as the step shows it; None where it does not.
        step: how often they were updated.
    """
    view = replace(seen.layer.view, load_counts=lambda: counts.astype(np.float32))
    try:
        votes = without_start(view, None if decay is None else decay**step)
    except Missing:
        return None
    if votes.sum() <= 0:
        return None
    batches = 1.0 if decay is None else ema_window(decay)
    low, high = ema_interval(votes, max(1.0, float(votes.sum()) * batches))
    return CountsUsage(
        layer=view.name,
        source="batch",
        sample_size=len(votes),
        perplexity=float(np.exp(plug_in_entropy(votes))),
        low=low,
        high=high,
    )


_SIZE = {"z_e": "z_e_norm", "codebook": "code_norm"}
"""The figure that is not finite where a tensor is not."""
