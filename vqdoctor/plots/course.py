"""The usage over a training, and the lengths of z_e and of the codes, as its trace recorded them."""

from __future__ import annotations

from collections.abc import Iterator

from vqdoctor.core.evidence import Course
from vqdoctor.core.report import Report
from vqdoctor.plots._curves import Line, curves
from vqdoctor.plots._plot import BLUE, GREEN, PURPLE, VERMILLION, Drawing, Plot


def drawings(report: Report, layer: str | None) -> Iterator[Drawing]:
    """Yield the course of the layer's usage, and that of the lengths where it has a codebook."""
    found = report.find(Course, layer)
    if found is None or not found.steps:
        return
    size, steps = found.num_codes, found.steps
    revived = [(step, count) for step, count in zip(steps, found.revived, strict=False) if count > 0]
    lines = (
        Line(label="perplexity", points=list(zip(steps, found.perplexity, strict=False)), color=BLUE),
        Line(label="active", points=list(zip(steps, found.active, strict=False)), color=GREEN, style="--"),
        Line(label="revived", points=revived, color=PURPLE, style="^"),
        Line(label="K", points=[(steps[0], size), (steps[-1], size)], color=VERMILLION, style=":"),
    )
    yield curves(
        lines,
        title="Usage over the training",
        caption=f"On training batches, by the trace. K is {size:,}.",
        x="optimizer steps",
        y="codes",
        top=size * 1.08,
        part="usage",
    )
    lengths: list[tuple[int, float, float]] = list(zip(steps, found.z_e_norm, found.code_norm, strict=False))
    if not lengths:
        return
    of_vectors, of_codes = ([(row[0], row[i]) for row in lengths] for i in (1, 2))
    yield curves(
        (
            Line(label="z_e", points=of_vectors, color=BLUE),
            Line(label="codes", points=of_codes, color=VERMILLION, style="--"),
        ),
        title="Lengths of z_e and codes over the training",
        caption="By the trace. Where the lines part, the codes no longer follow z_e.",
        x="optimizer steps",
        y="root mean square length",
        top=1.1 * max(max(pair[1:]) for pair in lengths) or 1.0,
        part="lengths",
    )


PLOT = Plot(name="course", place=60, drawings=drawings)
