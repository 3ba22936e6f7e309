"""z_e goes on growing, and the codes fall behind it.

## Why it matters
Codes follow z_e with a delay. If no loss and no norm holds z_e, it grows faster than they follow: each
vector lies farther from its code, the quantization error grows, and fewer and fewer codes are near enough to
be chosen. The usage falls long after the drift has begun.

## How to read it
From a trace: the size of z_e at its end over that halfway, the same for its ratio to the size of the codes,
and how steadily it grew in between, by Kendall's tau. z_e grows in the first part of many a sound training,
and then levels off; and codes that keep up with it lose nothing. So both must grow, late in the training.

## Remedy
raise-vq-weight: the commitment loss holds z_e near its codes. normalise-before-vq bounds it by a norm layer.

## References
- van den Oord et al. 2017, arXiv:1711.00937: without the commitment loss z_e "can grow arbitrarily"
- lucidrains/vector-quantize-pytorch#27: the VQ loss grows while the encoder's norm drifts
"""

from collections.abc import Iterator

from vqdoctor.checks._causes import COLLAPSE
from vqdoctor.checks._course import falling, require_length, smooth
from vqdoctor.checks._words import figure, measured, problem
from vqdoctor.core.check import CannotJudge, Check, CheckLimits, fires, limit, passes
from vqdoctor.core.evidence import Course
from vqdoctor.core.finding import Problem
from vqdoctor.core.levels import Confidence, Severity


class Limits(CheckLimits):
    """How far and how steadily z_e grows away."""

    growth: float = limit(
        2.0,
        "Factor by which z_e grew in the second half. 33 layers of healthy trainings by seven "
        "implementations measured at most 1.26; a codebook moved by gradients, with a VQ loss of weight "
        "0.001 and no norm layer, 3.4.",
    )
    lag: float = limit(
        1.1,
        "Factor by which its ratio to the codes grew. The healthy layers measured at most 1.03, that "
        "training 1.29; two others of this weight at most 0.98, and their usage stayed as it was.",
    )
    steadiness: float = limit(
        0.6, "Least Kendall's tau of the growth: 1 where every interval is higher than each before."
    )


def evaluate(course: Course, limits: Limits) -> Iterator[Problem]:
    """Compare the end of the course with its middle."""
    require_length(course)
    z_e, codes = smooth(course.z_e_norm), smooth(course.code_norm)
    half = len(z_e) // 2
    if not codes or not all(codes[half:]) or not all(z_e[half:]):
        raise CannotJudge("the trace does not hold the sizes of z_e and of the codes")
    growth, steadiness = z_e[-1] / z_e[half], -falling(z_e[half:])
    lag = growth / (codes[-1] / codes[half])
    if growth > limits.growth and lag > limits.lag and steadiness >= limits.steadiness:
        yield problem(
            Severity.WARNING,
            f"z_e grew from size {figure(z_e[half])} at step {course.steps[half]:,} to {figure(z_e[-1])} at "
            f"step {course.steps[-1]:,}, and goes on growing, while the codes grew from "
            f"{figure(codes[half])} to {figure(codes[-1])}: they fall behind.",
            measured("growth", growth, limits.growth),
            measured("lag", lag, limits.lag),
            measured("steadiness", steadiness, limits.steadiness),
            confidence=Confidence.LOW,
            decide_with="--task FILE.py:NAME",
        )


_DRIFT = (3.46, 3.28, 3.39, 3.49, 3.74, 3.87, 4.3, 5.54, 7.59, 10.2, 13.05, 15.83)
_BEHIND = (4.43, 3.06, 3.14, 3.3, 3.4, 3.5, 3.65, 4.07, 5.43, 6.93, 9.17, 10.1)

CHECK = Check(
    code="VQ524",
    name="z-e-drifts",
    evaluate=evaluate,
    limits=Limits(),
    remedies=("raise-vq-weight", "normalise-before-vq"),
    explained_by=COLLAPSE,
    examples=(
        fires("a VQ loss of weight 0.001", Course.healthy(z_e_norm=_DRIFT, code_norm=_BEHIND)),
        passes("z_e that grew at first", Course.healthy()),
        passes("codes that keep up with z_e", Course.healthy(z_e_norm=_DRIFT, code_norm=_DRIFT)),
    ),
    doc=__doc__,
)
