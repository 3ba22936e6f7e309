"""The nearest code is searched in a precision that cannot tell the codes apart.

## Why it matters
The search compares |z|^2 - 2 z e + |e|^2 between codes. The terms are large and nearly equal, and their
difference decides; with 8 bits (bfloat16) or 11 bits (float16) it is often lost in rounding. Vectors then
go to a code at random near the right one, or always to the same, and fewer codes are used. An EMA in such
a precision cannot even add a hundredth to a sum. In float16 the square of a number under 2e-4 is 0:
all distances are then equal, and the first code is always chosen.

## How to read it
With a model: the layer is asked twice for the same input, as it is (its own types and casts, and autocast
if the task uses it) and in float32 throughout. Some disagreement is harmless, since the other code is nearly
as near; a tight codebook far from the origin is what half precision cannot search (bfloat16 measured 0.15).
Near ties hardly change the distance to the chosen code. So it counts as well where that error grows.
An autocast that your training loop sets outside the task cannot be seen.
Without a model: a codebook stored in half precision is common and harmless if it was trained in float32.
It counts only where most codes have a neighbour so near that this precision cannot tell the two.

## Remedy
full-precision-lookup: keep the codebook, its EMA and the search in float32, with autocast off.

## References
- rosinality/vq-vae-2-pytorch#65: mixed precision, infinite latent loss
- lucidrains/vector-quantize-pytorch#144, #145: distances under autocast
"""

from vqdoctor.checks._words import Problems, if_known, measured, percent, warning
from vqdoctor.core.check import Check, CheckLimits, fires, limit, passes
from vqdoctor.core.evidence import LookupPrecision
from vqdoctor.core.levels import Confidence


class Limits(CheckLimits):
    """How many codes may change with the precision."""

    agreement: float = limit(
        0.5,
        "Least share of the vectors that must get the same code in float32. Near ties alone turn some: "
        "healthy models keep 0.92 to 0.99. From 0.5 upwards at most a tenth of the codes fell out of use, "
        "below it up to seven tenths (random codebooks of 256 to 8,192 codes, 4 to 64 dimensions).",
    )
    error_growth: float = limit(
        0.25,
        "Largest growth of the quantization error by the precision. A quarter more is what losing a third of "
        "the codes costs in four dimensions. K-means codebooks of 256 to 2,048 codes in bfloat16 measured at "
        "most 0.07 with a mean of up to two standard deviations, and 0.3 to 2.6 with one of eight.",
    )
    added_error: float = limit(
        0.01,
        "Largest growth of the quantization error as a share of the variance of z_e. Where codes lie that "
        "close to all vectors, a larger growth of next to nothing costs next to nothing.",
    )
    blurred: float = limit(
        0.5,
        "Largest share of a stored codebook whose nearest neighbour is within the rounding error of the "
        "search. Trained codebooks cast to half precision measured 0 to 0.05, tight ones far from the origin "
        "1.",
    )


def evaluate(precision: LookupPrecision, limits: Limits) -> Problems:
    """Compare the codes where the layer was asked, else the codebook with its own rounding."""
    share = precision.blurred_rows / precision.sample_size if precision.sample_size else 0.0
    if precision.agreement is not None:
        if precision.agreement < limits.agreement:
            yield warning(
                f"Only {percent(precision.agreement)} of the vectors get the same code from the search in "
                f"{precision.dtype} as in float32.",
                measured("agreement", precision.agreement, limits.agreement),
                if_known("used", precision.used, unit="codes"),
                if_known("used_in_float32", precision.used_in_full, unit="codes"),
            )
        elif _errs(precision, limits):
            yield warning(
                f"The search in {precision.dtype} gives {percent(1 - precision.agreement)} of the vectors "
                f"another code than in float32, and with it {percent(precision.error_growth or 0.0)} more "
                "quantization error.",
                measured("agreement", precision.agreement),
                if_known("error_growth", precision.error_growth, limits.error_growth),
                if_known("added_error", precision.added_error, limits.added_error),
                if_known("used", precision.used, unit="codes"),
                if_known("used_in_float32", precision.used_in_full, unit="codes"),
            )
    elif share > limits.blurred:
        yield warning(
            f"The codebook is stored in {precision.dtype}, in which {percent(share)} of its codes "
            "cannot be told from their neighbours: a search in this precision picks among them at random.",
            measured("blurred", share, limits.blurred),
            measured("blurred_rows", precision.blurred_rows, unit="codes"),
            confidence=Confidence.MEDIUM,
            decide_with="--data batch.npz",
        )


def _errs(precision: LookupPrecision, limits: Limits) -> bool:
    """Whether the other codes are farther than near ties explain."""
    growth, added = precision.error_growth, precision.added_error
    if growth is None or added is None:
        return False
    return growth > limits.error_growth and added > limits.added_error


_STORED = LookupPrecision.healthy(source="checkpoint", agreement=None, used=None, used_in_full=None)

CHECK = Check(
    code="VQ108",
    name="low-precision-lookup",
    evaluate=evaluate,
    limits=Limits(),
    remedies=("full-precision-lookup",),
    examples=(
        fires(
            "bfloat16 on a tight codebook",
            LookupPrecision.healthy(
                dtype="bfloat16", agreement=0.15, used=564, used_in_full=974, sample_size=16_384
            ),
        ),
        fires(
            "bfloat16 on vectors that share an offset of seven of their standard deviations",
            LookupPrecision.healthy(dtype="bfloat16", agreement=0.59, error_growth=0.6, added_error=0.037),
        ),
        passes(
            "clusters far smaller than their distances, and a code for each vector of them",
            LookupPrecision.healthy(dtype="bfloat16", agreement=0.7, error_growth=0.4, added_error=0.002),
        ),
        fires(
            "tight, stored in bfloat16", _STORED.replace(dtype="bfloat16", sample_size=256, blurred_rows=250)
        ),
        passes("float32", LookupPrecision.healthy()),
        passes("half precision, apart", LookupPrecision.healthy(dtype="float16", agreement=0.994, used=239)),
        passes("a file that was cast to float16 to save space", _STORED.replace(dtype="float16")),
    ),
    doc=__doc__,
)
