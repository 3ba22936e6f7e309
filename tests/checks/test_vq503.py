"""VQ503 duplicate-codes just inside and just outside its limits."""

from __future__ import annotations

import pytest
from judged import says

from vqdoctor.checks import all_checks
from vqdoctor.checks._usage import COLLAPSED_USAGE
from vqdoctor.core.evidence import CodebookGeometry, EvalForward, Evidence
from vqdoctor.engine.evaluate import evaluate
from vqdoctor.engine.rank import rank

GEOMETRY = CodebookGeometry.healthy()


@pytest.mark.parametrize(
    ("evidence", "expected"),
    [
        ([GEOMETRY.replace(duplicate_rows=13)], "warning"),
        ([GEOMETRY.replace(duplicate_rows=12)], "passes"),
        ([GEOMETRY.replace(duplicate_rows=60, zero_rows=40)], "warning"),
        # of 255 dead codes
        ([GEOMETRY.replace(duplicate_rows=127), COLLAPSED_USAGE], "note"),
        ([GEOMETRY.replace(duplicate_rows=128), COLLAPSED_USAGE], "warning"),
        ([GEOMETRY.replace(duplicate_rows=70, unused_copies=127), COLLAPSED_USAGE], "note"),
        ([GEOMETRY.replace(duplicate_rows=70, unused_copies=128), COLLAPSED_USAGE], "warning"),
    ],
)
def test_limits(evidence: list[Evidence], expected: str) -> None:
    assert says("VQ503", *evidence) == expected


def test_an_evaluation_that_trains_the_codebook_makes_no_copies() -> None:
    in_eval = EvalForward.healthy(changed=("vq.embed",), changed_count=1, codebook=True, again=True)
    evidence = [GEOMETRY.replace(duplicate_rows=200), COLLAPSED_USAGE, in_eval]
    findings = rank(evaluate(all_checks(), ["vq"], evidence, []).findings, all_checks())
    assert [f.code for f in findings if f.explained_by is None] == ["VQ307", "VQ503"]
