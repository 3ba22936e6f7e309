"""A codebook and its EMA statistics that no name gives away: they prove themselves by their relation.

    quantizer.weight                   [Q, K, D]  a soundstream: the levels of one stack in one buffer
    quantizer.running_mean             [Q, K, D]
    quantizer.code_relative_frequency  [Q, K]     shares of the usage in place of counts

A table of counts [..., K] beside two tables [..., K, D] is an EMA where one of the two is the other over the
counts, up to one factor. Values are read only where the shapes fit so, which few other modules do.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from vqdoctor.core.levels import Confidence
from vqdoctor.layouts.build import build, is_float
from vqdoctor.layouts.siblings import layer_path
from vqdoctor.layouts.state_dict import StateDict
from vqdoctor.layouts.view import QuantizerView

BY_RELATION = "proven by its relation"
"""Layout of such a layer."""
SAME = 0.02
"""Median relative difference up to which a row is its sum over its count: smoothing and a half-precision file
explain 0.01, while unrelated tables differ by their whole length."""
RARE = 1e-2
"""Counts under this share of their mean, or of one vector, are left out: smoothing changes their rows."""
MOST_COUNTS = 16
"""Tensors of one module that are tried as the counts of two tables, each of which is read for it."""
FEWEST = 8
"""Codes from which one factor for all of them is a proof."""

Floats = NDArray[np.float64]


def proven(state: StateDict, known: Collection[str]) -> Iterator[QuantizerView]:
    """Yield the views of every codebook that its sums and counts prove.

    Args:
        state: the state dict.
        known: raw keys of the tensors of layers whose statistics are known by name.
    """
    for owner, names in _by_owner(state).items():
        by_rows: defaultdict[tuple[int, ...], list[str]] = defaultdict(list)
        for name in names:
            by_rows[state.entries[name].shape[:-1]].append(name)
        tried: Counter[tuple[int, ...]] = Counter()
        for counts in names:
            shape = state.entries[counts].shape
            tables = by_rows.get(shape, [])
            if len(tables) != 2 or not 1 <= len(shape) <= 2 or shape[-1] < FEWEST:
                continue
            tried[shape] += 1
            if tried[shape] > MOST_COUNTS:
                continue
            if any(state.raw[name] in known for name in (counts, *tables)):
                continue
            codes = _codes(state, counts, tables)
            if codes is not None:
                sums = next(name for name in tables if name != codes)
                roles = {"codebook": codes, "counts": counts, "sums": sums}
                views = build(state, name=layer_path(owner), roles=roles, confidence=Confidence.MEDIUM)
                yield from (replace(view, layout=BY_RELATION) for view in views)


def _codes(state: StateDict, counts: str, tables: list[str]) -> str | None:
    """Return which of two tables is the other over the counts; None if neither is."""
    weights = np.asarray(state.entries[counts].read(), dtype=np.float64)
    one, two = (np.asarray(state.entries[name].read(), dtype=np.float64) for name in tables)
    if _is_quotient(one, two, weights):
        return tables[0]
    return tables[1] if _is_quotient(two, one, weights) else None


def _by_owner(state: StateDict) -> dict[str, list[str]]:
    """Return the float tensors of each module, a child's `weight` among its parent's."""
    found: dict[str, list[str]] = defaultdict(list)
    for name, tensor in state.entries.items():
        if is_float(tensor) and 1 <= len(tensor.shape) <= 3:
            owner, _, leaf = name.rpartition(".")
            found[owner].append(name)
            if leaf == "weight" and owner:
                found[owner.rpartition(".")[0]].append(name)
    return {owner: names for owner, names in found.items() if len(names) > 2}


def _is_quotient(codes: Floats, sums: Floats, counts: Floats) -> bool:
    """Whether codes are sums over counts, up to one factor, and counts differ as usage does."""
    # After a collapse one code has nearly all: a count of a hundredth is still far above any smoothing.
    live = counts > RARE * min(counts.mean(), 1.0)
    if not all(np.isfinite(table).all() for table in (codes, sums, counts)) or counts.min() < 0:
        return False
    rows, means = codes[live], sums[live] / counts[live][:, None]
    size = np.square(means).sum()
    if live.sum() < FEWEST or not size or np.ptp(counts[live]) <= SAME * counts[live].mean():
        return False
    factor = (rows * means).sum() / size
    apart = np.linalg.norm(rows - factor * means, axis=1)
    length = np.linalg.norm(rows, axis=1)
    return bool(factor > 0 and np.median(apart / np.maximum(length, 1e-12)) < SAME)
