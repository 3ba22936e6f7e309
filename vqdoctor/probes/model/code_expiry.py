"""The vectors of a batch against the codes, and how many codes a forward pass replaces."""

from __future__ import annotations

import numpy as np

from vqdoctor.capture.masks import MASKED
from vqdoctor.core.evidence import CodeExpiry
from vqdoctor.models.guarded_task import GuardedTask
from vqdoctor.probes._ema_rows import written_counts
from vqdoctor.probes.model._context import ModelContext
from vqdoctor.probes.model._forwards import FAR, Pass, passes
from vqdoctor.probes.model._gaps import each_layer

_THRESHOLDS = ("threshold_ema_dead_code", "revival_threshold", "restart_thres")
"""Names in libraries of the EMA count under which they replace a code. A `dead_code_threshold` is not among
them: in home-made layers it is a number of steps, and a switch beside it may turn the replacement off."""


def measure(context: ModelContext) -> dict[str, CodeExpiry]:
    """Return every layer's batch against its codebook; the first pass, which may initialise, is left out."""
    return {
        name: _evidence(context, name, parts) for name, (_, *parts) in passes.at(context).items() if parts
    }


def _evidence(context: ModelContext, name: str, parts: list[Pass]) -> CodeExpiry:
    layer = context.layers[name]
    module = context.model.get_submodule(layer.tensors["codebook"].rpartition(".")[0])
    held = (getattr(module, name, None) for name in _THRESHOLDS)
    # 0 turns the replacement off
    threshold = next((float(n) for n in held if isinstance(n, int | float) and n > 0), None)
    counts = written_counts(layer.view)
    return CodeExpiry(
        source="batch",
        sample_size=layer.num_codes,
        vectors=float(np.mean([one.vectors for one in parts])),
        assumed_batch_size=getattr(context.task, "assumed_batch_size", None),
        threshold=threshold,
        expired=None
        if counts is None or threshold is None
        else float((counts <= threshold * (1 + 1e-6)).mean()),
        replaced=float(
            np.median([np.sum(p.travelled > FAR) / min(len(p.travelled), p.vectors) for p in parts])
        ),
        epoch_vectors=_whole_split(context, name),
    )


def _whole_split(context: ModelContext, name: str) -> float | None:
    """Return the vectors of the train split; None where only a part of the data is at hand."""
    task = context.task
    if not isinstance(task, GuardedTask) or getattr(task, "serves_a_sample", False) or context.arrays:
        return None
    codes = context.codes("train").get(name)
    return None if codes is None or "train" in task.cut else float((codes != MASKED).sum())


PROBE = each_layer(CodeExpiry, measure, mode="train")
