"""From a trace to the course of each layer."""

from __future__ import annotations

from vqdoctor.core.evidence import Course, Unavailable
from vqdoctor.core.trace import SCHEMA, Interval, RunTrace, Start, TracedLayer
from vqdoctor.probes import trace


def run(rows: int) -> RunTrace:
    layers = (TracedLayer(name="vq", num_codes=256, dim=64),)
    return RunTrace(
        start=Start(step=0, schema=SCHEMA, version="0", every=100, layers=layers),
        intervals=tuple(
            Interval(step=100 * i, layer="vq", vectors=1, perplexity=float(i), active=i, revived=1)
            for i in range(1, rows + 1)
        ),
    )


def test_a_course_has_the_rows_of_its_layer() -> None:
    (course,) = trace.courses(run(3), ["vq"])
    assert isinstance(course, Course)
    assert (course.steps, course.perplexity, course.revived) == ((100, 200, 300), (1.0, 2.0, 3.0), (1, 1, 1))


def test_a_long_course_is_thinned_and_loses_no_revival() -> None:
    (course,) = trace.courses(run(5_000), ["vq"])
    assert isinstance(course, Course)
    assert len(course.steps) == trace.MOST and (course.steps[0], course.steps[-1]) == (100, 500_000)
    assert sum(course.revived) == 5_000


def test_a_layer_without_usage_and_a_missing_trace_have_a_reason() -> None:
    told = [*trace.courses(run(0), ["vq"]), *trace.courses(None, ["vq"])]
    assert [type(item) for item in told] == [Unavailable, Unavailable]
    assert len({item.reason for item in told if isinstance(item, Unavailable)}) == 2
