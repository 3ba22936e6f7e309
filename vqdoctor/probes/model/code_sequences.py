"""The codes of a layer whose positions are a sequence: how long they stay, and where they go."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vqdoctor.core.evidence import CodeSequences
from vqdoctor.metrics.entropy import plug_in_entropy
from vqdoctor.models.task import Split
from vqdoctor.probes.model._context import ModelContext
from vqdoctor.probes.model._gaps import each_layer
from vqdoctor.probes.model._looks import Looking, shared

SPLIT: Split = "val"


@shared(passes=1)
def look(_: ModelContext) -> Looking[list[str]]:
    """See which layers have their positions on one axis; those of images lie on two."""
    on_one = []
    for name, step in ((yield None) or {}).items():
        not_positions = (0, step.axis % step.z_e.ndim)
        axes = [length for at, length in enumerate(step.z_e.shape) if at not in not_positions]
        if axes and sum(length > 1 for length in axes) <= 1:
            on_one.append(name)
    return on_one


def measure(context: ModelContext) -> dict[str, CodeSequences]:
    """Return the sequences of every layer whose positions lie on one axis."""
    codes = context.codes(SPLIT)
    measured = {}
    for name in look.at(context):
        seen = context.seen.get(SPLIT, {}).get(name)
        if name not in codes or seen is None or codes[name].shape[1] < 2:
            continue
        whole = np.all(codes[name] >= 0, axis=1)  # a masked position has no code
        if whole.any() and len(codes[name]) == len(seen.z_e):
            measured[name] = _sequences(codes[name][whole], seen.z_e[whole])
    return measured


def _sequences(codes: NDArray[np.int64], z_e: NDArray[np.float32]) -> CodeSequences:
    count, length = codes.shape
    changes = codes[:, 1:] != codes[:, :-1]
    modes = [np.unique(column, return_counts=True)[1].max() for column in codes.T]
    vectors = z_e.astype(np.float64)
    total = np.square(vectors - vectors.mean(axis=(0, 1))).mean()
    inside = np.square(vectors - vectors.mean(axis=1, keepdims=True)).mean()
    return CodeSequences(
        source="batch",
        sample_size=codes.size,
        sequences=count,
        length=length,
        used=len(np.unique(codes)),
        constant_share=float((~changes).all(axis=1).mean()),
        dwell=codes.size / float(changes.sum() + count),
        transition_entropy=_transition_entropy(codes),
        same_share=float(np.mean(modes)) / count,
        within=float(inside / total) if total > 0 else 0.0,
    )


def _transition_entropy(codes: NDArray[np.int64]) -> float:
    """Return H(now, next) - H(now) in bits."""
    _, ids = np.unique(codes, return_inverse=True)
    ids = ids.reshape(codes.shape).astype(np.int64)
    pairs = ids[:, :-1] * (int(ids.max()) + 1) + ids[:, 1:]
    joint, now = (np.unique(a, return_counts=True)[1] for a in (pairs, ids[:, :-1]))
    return max(0.0, float(plug_in_entropy(joint) - plug_in_entropy(now)) / float(np.log(2)))


NO_SEQUENCE = "the layer's positions are not a sequence in time"
PROBE = each_layer(CodeSequences, measure, NO_SEQUENCE, mode="both", needs_codebook=False)
