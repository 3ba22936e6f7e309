"""Codes in use that train-mode forward passes drive away from the vectors that chose them.

An EMA moves a code towards its vectors, and a revival gives a new place to codes that no vector chooses.
Neither moves a code away from the many vectors that just chose it.
"""

from __future__ import annotations

import contextlib
from collections import defaultdict

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from vqdoctor.capture.call import FAILURES, Call
from vqdoctor.capture.layer import CapturedLayer
from vqdoctor.capture.vectors import rows
from vqdoctor.core.evidence import LiveReplacement
from vqdoctor.metrics.match import nearest
from vqdoctor.metrics.means import code_means
from vqdoctor.probes.model._context import ModelContext
from vqdoctor.probes.model._forwards import FAR
from vqdoctor.probes.model._gaps import each_layer
from vqdoctor.probes.model._looks import Looking, shared

PASSES = 4
ALONE, COUNTED, WORK = 22, 64, 2**31
"""Passes of a layer alone, as a revival may come every ten steps; of one that counts its passes, every fifty;
and the most products in them."""
FAIR = 0.5
"""A code is in use that a pass chooses at least this many times as often as an even usage would."""
TWICE = 2
"""Vectors that a code in use is chosen by, at least."""

_Replaced = tuple[int, int]
"""Codes in use in one pass, and those of them that it drove away."""


@shared(passes=PASSES)
def look(context: ModelContext) -> Looking[dict[str, list[_Replaced]]]:
    """See the codes in use that passes of the whole model drive away; the first one may place the codes."""
    found: dict[str, list[_Replaced]] = defaultdict(list)
    before: dict[str, NDArray[np.float32]] = {}
    for _ in range(PASSES):
        for name, step in ((yield None) or {}).items():
            if step.layer.codebook.codes is None:
                continue  # codes that are computed from several tensors
            after = _codes(step.layer)
            if name in before and (pair := _driven(step.layer, step.call, before[name], after)) is not None:
                found[name].append(pair)
            before[name] = after
    return found


def measure(context: ModelContext) -> dict[str, LiveReplacement]:
    """Return, for every layer, how many of its codes in use passes drive away."""
    found = {name: list(pairs) for name, pairs in look.at(context).items() if pairs}
    model = context.copy(training=True)
    calls, _ = context.first_calls(training=True)
    for name, pairs in found.items():
        layer = context.layers[name].on(model)
        if not layer.inline and name in calls:
            pairs += _alone(layer, calls[name], context.seed)
    return {
        name: LiveReplacement(
            source="batch",
            sample_size=len(pairs),
            worst=max(driven / max(live, 1) for live, driven in pairs),
            mean=sum(driven for _, driven in pairs) / max(sum(live for live, _ in pairs), 1),
        )
        for name, pairs in found.items()
    }


def _alone(layer: CapturedLayer, call: Call, seed: int) -> list[_Replaced]:
    """Return the effect of further passes of the layer alone, on one batch again and again."""
    found: list[_Replaced] = []
    affordable, passes, number = WORK // max(call.z_e.numel() * layer.num_codes, 1), ALONE, 0
    with contextlib.suppress(*FAILURES):
        before = _codes(layer)
        while number < min(passes, affordable):
            counted = _numbers(layer.module) if number == 1 else None
            again = call.again(seed + number, module=layer.module)
            after = _codes(layer)
            if counted is not None and counted != _numbers(layer.module):
                passes = COUNTED
            pair = _driven(layer, again, before, after)
            if pair is None:
                break
            found += [pair] * (number > 0)
            before, number = after, number + 1
    return found


def _numbers(module: nn.Module) -> dict[tuple[str, str], object]:
    """Return the single numbers that a layer keeps, among them how often it was called if it counts that."""
    return {
        (name, kept): value.detach().item() if isinstance(value, torch.Tensor) else value
        for name, part in module.named_modules()
        for kept, value in (*vars(part).items(), *part.named_buffers(recurse=False))
        if isinstance(value, int | float) or (isinstance(value, torch.Tensor) and value.numel() == 1)
    }


def _codes(layer: CapturedLayer) -> NDArray[np.float32]:
    return layer.codes().cpu().numpy()


def _driven(
    layer: CapturedLayer, call: Call, before: NDArray[np.float32], after: NDArray[np.float32]
) -> _Replaced | None:
    """Return the codes in use of a pass, and how many of them end far from the mean of their vectors.

    None where its vectors do not have the codes' dimension. A layer that gives no codes chose the nearest.
    """
    reader = layer.reader
    z_e = rows(call.z_e.detach(), reader.axis(call)).flatten(0, 1).float().cpu().numpy()
    if reader.head is not None or z_e.shape[1] != before.shape[1] or before.shape != after.shape:
        return None
    vectors, given = reader.as_compared(z_e), reader.given(call)
    if given is None:
        chosen = nearest(vectors, before).indices
    elif given.numel() == len(z_e):
        chosen = given.flatten().cpu().numpy()
    else:
        return None
    vectors, chosen = vectors[chosen >= 0], chosen[chosen >= 0]
    counts, means = code_means(vectors, chosen, len(before))
    live = counts >= max(TWICE, FAIR * len(chosen) / len(before))
    if not live.any():
        return 0, 0
    codes = before[live]
    scale = float(np.median(np.linalg.norm(codes - codes.mean(axis=0), axis=1)))
    gone, was = (np.linalg.norm(table[live] - means[live], axis=1) for table in (after, before))
    return int(live.sum()), int((gone > was + FAR * scale).sum())


PROBE = each_layer(
    LiveReplacement,
    measure,
    "the layer's vectors or its own choices are not seen, or the model passes once",
    mode="train",
)
