"""VQ104 two-writers just inside and just outside its limits."""

from __future__ import annotations

import pytest
from judged import problems, says

from vqdoctor.core.evidence import CodebookWriters, EmaState, Evidence, OptimizerMemory
from vqdoctor.core.levels import Confidence

WRITERS = CodebookWriters.healthy()
MEMORY = OptimizerMemory.healthy(codebook_listed=True, codebook_has_state=True)
TRAINED = WRITERS.replace(gradient=0.1, sample_size=200)
EMA = EmaState.healthy()


@pytest.mark.parametrize(
    ("evidence", "expected"),
    [
        # only a gradient that the optimizer may use makes a second writer
        ([TRAINED.replace(kept=0.91)], "passes"),
        ([TRAINED.replace(kept=0.89)], "warning"),
        ([TRAINED.replace(kept=0.0, listed=False)], "passes"),
        ([WRITERS.replace(listed=True)], "passes"),
        ([WRITERS.replace(replaced=True)], "passes"),
        ([WRITERS.replace(replaced=True, listed=True)], "note"),
        ([TRAINED.replace(replaced=True, kept=1.0)], "warning"),
        ([MEMORY, EMA.replace(sums_disagreement=0.009)], "warning"),
        ([MEMORY, EMA.replace(sums_disagreement=0.011)], "passes"),
        ([MEMORY, EMA.replace(sums_disagreement=0.0, never_written=True)], "cannot judge"),
        ([MEMORY, EMA.replace(sums_disagreement=None)], "cannot judge"),
        ([MEMORY], "cannot judge"),
        ([MEMORY.replace(codebook_has_state=False), EMA], "passes"),
        ([WRITERS, MEMORY, EMA.replace(sums_disagreement=0.0)], "passes"),
    ],
)
def test_limits(evidence: list[Evidence], expected: str) -> None:
    assert says("VQ104", *evidence) == expected


def test_only_a_gradient_that_the_optimizer_has_is_known_for_sure() -> None:
    fought = TRAINED.replace(kept=0.0)
    assert problems("VQ104", fought.replace(listed=True))[0].confidence is Confidence.HIGH
    assert problems("VQ104", fought)[0].confidence is Confidence.MEDIUM
