"""The codebooks of a training's other processes, where each has saved a file of its own beside this one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from vqdoctor.checkpoint import Checkpoint, CheckpointError, open_checkpoint
from vqdoctor.core.evidence import Evidence, RankAgreement, Unavailable
from vqdoctor.layouts.view import LEAST_COUNT, QuantizerView
from vqdoctor.probes._agreement import Apart, rank_of, without_rank
from vqdoctor.probes.file._context import FileContext
from vqdoctor.probes.probe import Missing, Probe

_MOST = 8
"""Other files that are opened."""


def measure(context: FileContext) -> Iterator[Evidence | Unavailable]:
    """Yield, for each layer, how its codebook agrees with those of the other processes."""
    others = list(_others(context.checkpoint.path))
    for view in context.views:
        found = [apart for other in others if (apart := _apart(view, other)) is not None]
        if not found or view.name not in context.finite:
            missing = Missing("no other process has saved such a codebook beside this file")
            yield missing.gap(RankAgreement, view.name, "checkpoint")
            continue
        yield RankAgreement(
            layer=view.name,
            source="checkpoint",
            sample_size=view.num_codes,
            others=len(found),
            differing=sum(apart.codes > 0 for apart in found),
            worst=max(apart.typical for apart in found),
            codes=max(apart.codes for apart in found),
        )


def _others(path: Path) -> Iterator[Checkpoint]:
    """Yield the files whose names differ from this one's in the number of the process alone.

    Processes are numbered from 0: without it the numbers are others, such as the ranks of matrices.
    """
    if rank_of(path.name) is None or not path.parent.is_dir():
        return
    pattern = without_rank(path.name)
    alike = sorted(o.name for o in path.parent.iterdir() if without_rank(o.name) == pattern)
    if not any(rank_of(name) == 0 for name in alike):
        return
    for name in [name for name in alike if name != path.name][:_MOST]:
        try:
            yield open_checkpoint(path.parent / name)
        except (CheckpointError, OSError):
            continue


def _apart(view: QuantizerView, other: Checkpoint) -> Apart | None:
    """Return how the codebook differs from the other file's; None where that has none."""
    needed = ("sums", "counts") if view.derived else ("codebook",)
    stored = [other.tensors.get(view.keys.get(role, "")) for role in needed]
    if not view.writable or None in stored:
        return None
    codes, *counts = (each.read().astype(np.float32) for each in stored if each is not None)
    theirs = view.place.codes(codes)
    if counts:
        theirs = theirs / np.maximum(view.place.counts(counts[0]), LEAST_COUNT)[:, None]
    if theirs.shape != view.codebook.shape or not np.isfinite(theirs).all():
        return None
    return Apart.of(np.asarray(view.codebook), theirs)


PROBE = Probe(kinds=(RankAgreement,), measure=measure)
