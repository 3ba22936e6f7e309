"""VQ608 just inside and just outside its limits; tests/engine/test_chain.py has really trained chains."""

from __future__ import annotations

import pytest
from judged import says

from vqdoctor.core.evidence import Evidence, SequenceStage, StepLabels, Usage

STAGE, LABELS = SequenceStage.healthy(), StepLabels.healthy()
MANY = LABELS.replace(sample_size=4_000, code_accuracy=0.68)  # a skill of 0.5


@pytest.mark.parametrize(
    ("evidence", "expected"),
    [
        ([STAGE], "passes"),
        ([STAGE.replace(spread=0.051)], "passes"),
        ([STAGE.replace(spread=0.049)], "warning"),
        ([STAGE.replace(spread=0.0, code_perplexity=1.9)], "cannot judge"),
        ([STAGE.replace(spread=None, told_apart=None, clusters=None)], "cannot judge"),
        ([STAGE.replace(states=None, durations=(), law="")], "passes"),
        # hours, and one step: the file does not tell which durations are right
        ([STAGE.replace(durations=(1e9,) * 7)], "passes"),
        ([STAGE.replace(durations=(1.0,) * 7)], "passes"),
        ([STAGE, MANY.replace(accuracy=0.59)], "passes"),
        ([STAGE, MANY.replace(accuracy=0.57)], "warning"),
        ([STAGE, MANY.replace(accuracy=0.44)], "warning"),
        ([STAGE, MANY.replace(accuracy=0.42)], "error"),
        ([STAGE, MANY.replace(accuracy=0.42, sample_size=80)], "error"),
        ([STAGE, MANY.replace(accuracy=0.42, sample_size=40)], "passes"),
        ([STAGE, MANY.replace(accuracy=0.18, code_accuracy=0.26)], "cannot judge"),
        ([STAGE.replace(code_perplexity=1.0), MANY.replace(accuracy=0.1)], "cannot judge"),
        ([STAGE, Usage.healthy(perplexity=1.2), MANY.replace(accuracy=0.1)], "cannot judge"),
        ([STAGE.replace(code_perplexity=1.0), Usage.healthy(), MANY.replace(accuracy=0.1)], "error"),
        # what the task shows counts before what the file lets expect
        ([STAGE.replace(spread=0.0), LABELS], "passes"),
        ([LABELS.replace(accuracy=0.2)], "cannot judge"),
    ],
)
def test_limits(evidence: list[Evidence], expected: str) -> None:
    assert says("VQ608", *evidence) == expected
