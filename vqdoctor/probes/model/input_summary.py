"""The shape and range of the input, since a wrong normalisation looks like collapse."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from vqdoctor.core.evidence import Evidence, InputSummary, Unavailable
from vqdoctor.probes._input import summarise
from vqdoctor.probes.model._context import ModelContext
from vqdoctor.probes.probe import Missing, Probe


def measure(context: ModelContext) -> Iterator[Evidence | Unavailable]:
    """Yield a summary of the model's input, unless the task brings its own data."""
    name = getattr(context.task, "input_name", "x")
    x = context.arrays.get(name)
    if x is None:
        return
    if x.dtype.kind == "f" and not np.isfinite(x).all():
        yield Missing(f"{name} has non-finite values").gap(InputSummary, None, "batch")
    else:
        yield summarise(name, x, x, context.arrays.get("y"))


PROBE = Probe(kinds=(InputSummary,), measure=measure, needs_codebook=False, of_model=True)
