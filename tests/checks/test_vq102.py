"""VQ102 encoder-cut-from-task just inside and just outside its limits."""

from __future__ import annotations

import pytest
from judged import says

from vqdoctor.core.evidence import EmaRelation, Evidence, TaskGradient

TASK = TaskGradient.healthy()
TOO_LONG = EmaRelation.healthy(scale=400.0, scale_spread=7e-9)


@pytest.mark.parametrize(
    ("evidence", "expected"),
    [
        # where the cut lies
        ([TASK.replace(at_output=None, at_input=0.0, ratio=None, before=0.0, joined=False)], "error"),
        ([TASK.replace(at_input=0.0, ratio=0.0, before=0.0)], "error"),
        # units out of action, behind codes of a wrong scale or for another reason: a zero, but a path
        ([TASK.replace(at_output=0.0, at_input=0.0, ratio=None, before=0.0)], "cannot judge"),
        ([TASK.replace(at_output=0.0, at_input=0.0, ratio=None, before=0.0), TOO_LONG], "cannot judge"),
        ([TASK.replace(at_output=None, at_input=0.0, before=0.0, joined=False), TOO_LONG], "error"),
        # no path to z_q, and one around it to the encoder, along which the gradient is zero
        ([TASK.replace(at_output=None, at_input=0.0, ratio=None, before=0.0), TOO_LONG], "cannot judge"),
        # a level of a residual stack with one outer estimator: the encoder does learn
        ([TASK.replace(at_input=0.0, ratio=0.0)], "passes"),
        # nothing joins the encoder to the layer, or its own units are out of action
        ([TASK.replace(before=1e-12, joined=False)], "error"),
        ([TASK.replace(before=0.0, joined=True)], "cannot judge"),
        # a report of an earlier release does not say which
        ([TASK.replace(before=0.0, joined=None)], "error"),
        ([TASK.replace(before=1e-5)], "passes"),
        ([TASK.replace(at_output=None, at_input=0.0, after=0.0)], "cannot judge"),
    ],
)
def test_limits(evidence: list[Evidence], expected: str) -> None:
    assert says("VQ102", *evidence) == expected
