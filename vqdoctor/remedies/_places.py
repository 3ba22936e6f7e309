"""New places for codes that are of no use where they are: in the cells of the codes that are used most."""

import heapq

import numpy as np
from numpy.typing import NDArray

from vqdoctor.layouts.layer_arrays import LayerArrays
from vqdoctor.metrics.geometry import Mask, Rows, row_norms
from vqdoctor.metrics.match import unit

BESIDE = 0.1
"""Without data, a code is put beside a used one, at this share of the distance to its neighbour."""
VECTORS_PER_CODE = 64
LEAST_VECTORS = 1 << 16
"""Of more vectors than either, a random part is used: enough to tell which cells are large."""
_Ints = NDArray[np.int64]


def relocate(layer: LayerArrays, rows: Mask) -> int:
    """Move these codes to where they will be chosen, and return how many found a place.

    The codes that stay keep their values, and share their counts with the codes that come to them. With z_e a
    code goes onto a vector of the largest cell, which it splits; without, beside a code that is used much.
    The result is 0 if every code would move, or if no cell holds two different vectors.
    """
    homes = np.flatnonzero(~rows & layer.finite)
    if not len(homes) or not rows.any():
        return 0
    if layer.z_e is not None and not layer.chosen_by_logits:
        return _onto_vectors(layer, layer.z_e, np.flatnonzero(rows), homes)
    return _beside(layer, np.flatnonzero(rows), homes)


def _onto_vectors(layer: LayerArrays, z_e: Rows, rows: _Ints, homes: _Ints) -> int:
    """Split the largest cell, again and again: a code goes onto one of its vectors, and takes its part.

    Any of the cell's vectors may be the one. To prefer those far from the code that is there, as k-means++
    does, left more codes dead on the sample (perplexity 864 to 881 of 1,024, against 914 to 924).
    """
    most = max(VECTORS_PER_CODE * layer.num_codes, LEAST_VECTORS)
    vectors = z_e if len(z_e) <= most else z_e[layer.rng.choice(len(z_e), most, replace=False)]
    compared = layer.as_compared(vectors)
    chosen = homes[layer.assign(vectors, layer.codebook[homes])]
    cells = {int(code): np.flatnonzero(chosen == code) for code in np.unique(chosen)}
    before = layer.sound_counts()
    weights = {code: 0.0 if before is None else before[code] / len(cell) for code, cell in cells.items()}
    largest = [(-len(cell), code) for code, cell in cells.items()]
    heapq.heapify(largest)
    new: list[int] = []
    while len(new) < len(rows) and largest:
        _, code = heapq.heappop(largest)
        inside = compared[cells[code]]
        far = row_norms(inside - layer.as_compared(layer.codebook[[code]]))
        if not far.any():
            continue
        pick = int(layer.rng.choice(np.flatnonzero(far)))
        row = int(rows[len(new)])
        layer.write(rows[len(new) : len(new) + 1], vectors[cells[code][[pick]]])
        goes = row_norms(inside - inside[pick]) < far
        cells[row], cells[code] = cells[code][goes], cells[code][~goes]
        weights[row] = weights[code]
        for owner in (code, row):
            if len(cells[owner]) > 1:
                heapq.heappush(largest, (-len(cells[owner]), owner))
        new.append(row)
    if before is not None:
        for code, cell in cells.items():
            before[code] = max(weights[code] * len(cell), layer.least_count())
        layer.settle(before, estimated=bool(new))
    return len(new)


def _beside(layer: LayerArrays, rows: _Ints, homes: _Ints) -> int:
    """Give each row to the code whose share of the usage, divided among its guests and itself, is largest.

    All guests of a code lie at one distance from it, in random directions, so that they differ.
    """
    known = layer.known_usage
    usage = np.ones(len(homes)) if known is None or not known[homes].any() else known[homes]
    guests = np.zeros(len(homes), dtype=np.int64)
    queue = [(-float(share), i) for i, share in enumerate(usage)]
    heapq.heapify(queue)
    hosts = np.empty(len(rows), dtype=np.int64)
    for n in range(len(rows)):
        _, i = heapq.heappop(queue)
        guests[i] += 1
        hosts[n] = i
        heapq.heappush(queue, (-float(usage[i] / (guests[i] + 1)), i))
    busy = np.flatnonzero(guests)
    step = np.zeros(len(homes), dtype=np.float32)
    step[busy] = BESIDE * layer.gap(homes[busy])
    directions = unit(layer.rng.standard_normal((len(rows), layer.codebook.shape[1])).astype(np.float32))
    layer.write(rows, layer.codebook[homes[hosts]] + step[hosts, None] * directions)
    share, before = 1.0 / (guests + 1), layer.sound_counts()
    if before is not None:
        before[homes] *= share
        before[rows] = before[homes[hosts]]
        touched = np.concatenate([rows, homes[busy]])
        before[touched] = np.maximum(before[touched], layer.least_count())
        layer.settle(before, estimated=True)
    if known is not None:
        known[homes] *= share
        known[rows] = known[homes[hosts]]
    return len(rows)
