"""Start the codebook where the data is.

Draw z_e from many batches, 64 vectors per code or more: k-means on 64 vectors for 256 codes left 65
distinct rows. Rows drawn at random from z_e do almost as well. Write the EMA sums (codes x counts) and
the counts with the codes, and clear the optimizer's moments of the codebook.

It changes what every index means, so a decoder that was trained with the old codes has to be trained
on; that is why it is not applied unasked.
"""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from typing import TYPE_CHECKING

from vqdoctor.core.levels import Stage
from vqdoctor.core.training_plan import PlanOptions, TrainingPlan
from vqdoctor.remedies._remedy import Remedy

if TYPE_CHECKING:  # a remedy is shown without numpy
    from vqdoctor.layouts.layer_arrays import LayerArrays

VECTORS_PER_CODE = 10
"""With fewer, a centre is the mean of too little to stand for new data."""


def apply(layer: LayerArrays) -> str:
    """Put every code onto the mean of a cluster of vectors, counted as the vectors are."""
    import numpy as np

    from vqdoctor.metrics.match import unit

    if layer.z_e is None or layer.chosen_by_logits:
        return "there are no vectors to place the codes by; --data brings them"
    least = VECTORS_PER_CODE * layer.num_codes
    if len(layer.z_e) < least:
        return f"{len(layer.z_e):,} vectors are too few for {layer.num_codes:,} codes; give {least:,} or more"
    if importlib.util.find_spec("torch") is None:
        return "k-means needs torch: pip install 'vqdoctor[torch]'"
    import torch

    from vqdoctor.vq.kmeans import kmeans

    generator = torch.Generator().manual_seed(int(layer.rng.integers(2**31)))
    vectors = torch.from_numpy(unit(layer.z_e) if layer.unit_rows else layer.z_e)
    clusters = kmeans(vectors, layer.num_codes, generator=generator)
    layer.write(np.arange(layer.num_codes), clusters.centres.numpy())
    old, new = layer.sound_counts(), clusters.counts.numpy().astype(np.float64)
    if old is not None:
        total = old.sum() or new.sum()
        layer.settle(np.maximum(new * total / new.sum(), layer.least_count()), estimated=True)
    return ""


def plan(current: TrainingPlan, options: PlanOptions) -> TrainingPlan:
    """Place the codebooks by k-means before the first step."""
    return replace(current, data_init=True)


REMEDY = Remedy(
    name="data-init",
    stage=Stage.INITIALISATION,
    changes_weights=True,
    how="Initialise the codebook from encoder outputs by k-means, and its EMA counts and sums with it.",
    code="codes, n = kmeans(z_e, num_codes)   # z_e [N, D] of many batches\n"
    "codebook.copy_(codes)\n"
    "counts.copy_(n)\n"
    "sums.copy_(codes * n[:, None])   # or the next update undoes it",
    names=("codebook", "counts", "sums"),
    setting=("k-means", "True"),
    doc=__doc__,
    apply=apply,
    plan=plan,
    writes_codes=True,
)
