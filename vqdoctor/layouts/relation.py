"""A codebook and its EMA statistics that no name gives away: they prove themselves by their relation.

    quantizer.weight                   [Q, K, D]  a soundstream: the levels of one stack in one buffer
    quantizer.running_mean             [Q, K, D]
    quantizer.code_relative_frequency  [Q, K]     shares of the usage in place of counts

A table of counts [..., K] beside two tables [..., K, D] is an EMA where one of the two is the other over the
counts, up to one factor. Values are read only where the shapes fit so, which few other modules do.

A wrong update leaves another relation, which proves the same: codes that are the sums times one number, or
over the counts plus a number, or over whole numbers, or at one length. Such tables are parallel row by row.

Codes that were written without their sums leave no relation to them. Sums and counts still tell what they
are: the sums grow with the counts, and the quotients lie where the codes do. Such tables are taken only in a
module that is named after quantization, and where their names say which is which.

An EMA that never ran leaves its start: counts of one and sums that are the codes, bit by bit; or counts and
sums of zero, which prove less and are taken only in a module that is named after quantization.
"""

from __future__ import annotations

import re
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
from vqdoctor.layouts.words import is_code_word, is_map, is_projection, near_vq
from vqdoctor.metrics.ema_relation import divisor_of
from vqdoctor.metrics.geometry import relative_range, spread
from vqdoctor.metrics.match import nearest

BY_RELATION = "proven by its relation"
"""Layout of such a layer."""
SAME = 0.02
"""Median relative difference up to which a row is its sum over its count: smoothing and a half-precision file
explain 0.01, while unrelated tables differ by their whole length."""
RARE = 1e-2
"""Counts under this share of their mean, or of one vector, are left out: smoothing changes their rows."""
BETTER = 0.1
"""Counts prove the relation where with them the difference is under this share of that without them. Counts
that are all alike make no difference."""
MOST_COUNTS = 16
"""Tensors of one module that are tried as the counts of two tables, each of which is read for it."""
FEWEST = 8
"""Codes from which one factor for all of them is a proof; numbers from which an exact relation is one."""
TINY = float(np.finfo(np.float32).tiny)
"""The smallest number that float32 holds with all its digits; a ratio to smaller counts is rounding."""
PARALLEL = 1e-4
"""Largest median relative difference of a row and a multiple of the row beside it that no chance explains. A
division leaves 1e-7 in float32, and an average of weights beside the weights 1e-3."""
ONE_LENGTH = 1e-3
"""Largest spread of the lengths of rows that were put on a sphere; float32 leaves 5e-8."""
GROWN = 0.75
"""Largest spread of log(|S| / c) over that of log |S|, of sums that grow with their counts. Layers with other
names measured 0.04 to 0.79, mostly under 0.55; two tables of codes beside counts over 1."""
THERE = 0.5
"""Largest median distance of S / c to the nearest code, over the spread of the codes. Two clusterings of one
z_e measured 0.22, noise of the same size 0.9."""
_SUMS = re.compile(r"sum|avg|average|mean|mass|total|acc|ema|run")
"""Names of a table of sums; a table of codes hardly ever has one."""

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
            if len({state.entries[name].shape for name in tables}) > 1:
                continue  # of a layer of weights, beside its bias
            if any(state.raw[name] in known for name in (counts, *tables)):
                continue
            codes = (
                _codes(state, counts, tables)
                or _never_run(state, owner, counts, tables)
                or _by_wrong_rule(state, owner, counts, tables)
                or _by_growth(state, owner, counts, tables)
            )
            if codes is not None:
                sums = next(name for name in tables if name != codes)
                views = build(
                    state,
                    name=layer_path(owner),
                    roles={"codebook": codes, "counts": counts, "sums": sums},
                    confidence=Confidence.MEDIUM,
                )
                yield from (replace(view, layout=BY_RELATION) for view in views)


def _codes(state: StateDict, counts: str, tables: list[str]) -> str | None:
    """Return which of two tables is the other over the counts; None if neither is.

    Codes that are the sums times the counts look like sums. Where a factor is left over, as that rule leaves
    one, the names say which is which.
    """
    weights = np.asarray(state.entries[counts].read(), dtype=np.float64)
    one, two = (np.asarray(state.entries[name].read(), dtype=np.float64) for name in tables)
    fits = [
        (abs(np.linalg.norm(quotient * weights[..., None]) / np.linalg.norm(others) - 1), codes, sums)
        for codes, quotient, sums, others in (
            (tables[0], one, tables[1], two),
            (tables[1], two, tables[0], one),
        )
        if _is_quotient(quotient, others, weights)
    ]
    if not fits:
        return None
    off, codes, sums = min(fits, key=lambda fit: fit[0] > SAME)  # codes with one count fit both ways round
    leaf, other = (name.rpartition(".")[2] for name in (codes, sums))
    swapped = _SUMS.search(leaf.lower()) and not _SUMS.search(other.lower()) and is_code_word(other)
    return sums if swapped and off > SAME else codes


def _never_run(state: StateDict, owner: str, counts: str, tables: list[str]) -> str | None:
    """Return which of two tables is the codebook of an EMA that is at its start; None if neither is."""
    weights = state.entries[counts].read()
    one, two = (np.asarray(state.entries[name].read(), dtype=np.float64) for name in tables)
    if (weights == 1).all():
        named = [name for name in tables if is_code_word(name.rpartition(".")[2])]
        return (named or tables)[0] if np.array_equal(one, two) and _differs(one) else None
    if weights.any() or not near_vq(owner.split(".")):
        return None
    if _differs(one) and not two.any():
        return tables[0]
    return tables[1] if _differs(two) and not one.any() else None


def _by_wrong_rule(state: StateDict, owner: str, counts: str, tables: list[str]) -> str | None:
    """Return which of two tables is the codebook of an EMA with another divisor; None if neither is.

    Only a quantizer's module is believed to hold two tables that are equal: elsewhere they may be tied.
    """
    tokens = [token for name in (counts, *tables) for token in name.removeprefix(f"{owner}.").split(".")]
    if any(is_projection(token) or is_map(token) for token in tokens):
        return None
    weights = np.asarray(state.entries[counts].read(), dtype=np.float64)
    one, two = (np.asarray(state.entries[name].read(), dtype=np.float64) for name in tables)
    if not all(np.isfinite(table).all() for table in (one, two, weights)) or weights.min() < 0:
        return None
    live = (weights > RARE * weights.mean()) & one.any(axis=-1) & two.any(axis=-1)
    lengths, others = np.linalg.norm(one[live], axis=-1), np.linalg.norm(two[live], axis=-1)
    if live.sum() < FEWEST or relative_range(weights[live]) < SAME or one.shape[-1] < 2:
        return None
    turned = one[live] / lengths[:, None] - two[live] / others[:, None]
    if np.median(np.linalg.norm(turned, axis=-1)) > PARALLEL:
        return None
    named = [name for name in tables if _SUMS.search(name.rpartition(".")[2].lower()) is None]
    ways = ((tables[0], others / lengths, lengths), (tables[1], lengths / others, others))
    for codes, divisors, own in sorted(ways, key=lambda way: way[0] not in named):
        rule, _ = divisor_of(divisors, weights[live])
        is_same = rule == "constant" and abs(np.median(divisors) - 1) < SAME
        if is_same and not near_vq(owner.split(".")) and not is_code_word(codes.rpartition(".")[2]):
            return None
        if rule in ("constant", "added", "whole") or relative_range(own) <= ONE_LENGTH:
            return codes
    return None


def _by_growth(state: StateDict, owner: str, counts: str, tables: list[str]) -> str | None:
    """Return which of two tables is a codebook that was written without its sums; None if neither is."""
    leaves = {name: name.removeprefix(f"{owner}.").removesuffix(".weight").lower() for name in tables}
    codes = [name for name in tables if is_code_word(leaves[name]) and not _SUMS.search(leaves[name])]
    if len(codes) != 1 or not near_vq(owner.split(".")):
        return None
    (other,) = (name for name in tables if name not in codes)
    if not _SUMS.search(leaves[other]):
        return None
    weights, rows, sums = (
        np.asarray(state.entries[name].read(), dtype=np.float64) for name in (counts, codes[0], other)
    )
    if not all(np.isfinite(table).all() for table in (rows, sums, weights)) or weights.min() < 0:
        return None
    live = (weights > RARE * weights.mean()) & sums.any(axis=-1)
    if live.sum() < FEWEST:
        return None
    lengths = np.log(np.linalg.norm(sums[live], axis=-1))
    if np.std(lengths - np.log(weights[live])) > GROWN * np.std(lengths):
        return None
    means = (sums[live] / weights[live][:, None]).astype(np.float32)
    flat = rows.reshape(-1, rows.shape[-1]).astype(np.float32)
    extent = spread(flat)
    if not extent or not THERE < spread(means) / extent < 1 / THERE:
        return None
    apart = nearest(means, flat).vector_distance
    return codes[0] if np.median(apart) < THERE * extent else None


def _differs(table: Floats) -> bool:
    """Whether the rows of [..., K, D] are finite and all different, as random codes are."""
    rows = table.reshape(-1, table.shape[-1])
    return bool(np.isfinite(rows).all()) and len(np.unique(rows, axis=0)) == len(rows)


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
    """Whether codes are sums over counts, up to one factor, and are not the sums themselves."""
    # After a collapse one code has nearly all: a count of a hundredth is still far above any smoothing.
    if not all(np.isfinite(table).all() for table in (codes, sums, counts)) or counts.min() < 0:
        return False
    live = counts > RARE * min(counts.mean(), 1.0)
    if live.sum() < FEWEST:
        if _is_exact(codes[live], sums[live], counts[live]):
            return True
        live = counts >= TINY  # where the smoothing is far smaller, the codes that lost it fit as well
    if live.sum() < FEWEST:
        return False
    apart = _apart(codes[live], sums[live] / counts[live][:, None])
    return apart < SAME and apart < BETTER * _apart(codes[live], sums[live])


def _is_exact(codes: Floats, sums: Floats, counts: Floats) -> bool:
    """Whether codes [N, D] are their sums over their counts up to rounding, and would not be so without them.

    A collapse leaves too few codes in use for a factor to be common to all of them. So none is allowed here.
    """
    lengths = np.linalg.norm(codes, axis=1)
    if codes.size < FEWEST or not lengths.all():
        return False
    off = np.linalg.norm(codes - sums / counts[:, None], axis=1) / lengths
    return bool(off.max() < PARALLEL and BETTER * np.median(np.abs(counts - 1)) > PARALLEL)


def _apart(rows: Floats, means: Floats) -> float:
    """Return the median relative difference of rows [N, D] and a multiple of means; infinite if none fits."""
    size = np.square(means).sum()
    factor = (rows * means).sum() / size if size else 0.0
    if factor <= 0:
        return np.inf
    differences = np.linalg.norm(rows - factor * means, axis=1)
    return float(np.median(differences / np.maximum(np.linalg.norm(rows, axis=1), TINY)))
