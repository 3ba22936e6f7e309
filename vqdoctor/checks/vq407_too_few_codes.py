"""The codebook is too small: all of its codes are in use, and what they leave out costs the task.

## Why it matters
K codes say log2 K bits of each vector, and no training makes it more. Where the encoder gives vectors that
differ in more than that, the codes swallow the difference. Usage and perplexity look perfect then.

## How to read it
All of these must hold. The codes are evenly in use. The quantization error is a large part of the variance
of z_e. It is about K^(-2 / directions), which K codes leave of vectors with that number of directions, so
that the codes lie well: misplaced codes are another cause. The task is far better with z_e in place of the
codes, and much of it is still to do with them. Vectors of many directions would need too many codes, and are
not judged. Nor are residual levels and groups, which share the vector. A codebook may be small on purpose,
hence the medium confidence.

## Remedy
more-codes: eight times as many codes leave 8^(-2 / directions) of the error. Residual levels add the most for
their cost: Q levels of K codes have K to the power of Q combinations.

## References
- Zador 1982, Asymptotic quantization error of continuous signals: the error of K codes falls as K^(-2 / dim)
"""

from vqdoctor.checks import _harm
from vqdoctor.checks._causes import COLLAPSE
from vqdoctor.checks._words import Problems, figure, measured, percent, warning
from vqdoctor.core.check import Advice, CannotJudge, Check, CheckLimits, fires, limit, passes
from vqdoctor.core.evidence import DataMatch, ResidualLevel, TaskMetrics, Usage
from vqdoctor.core.levels import Confidence, Severity


class Limits(CheckLimits):
    """When a codebook is full, and when it is too small."""

    full: float = limit(
        0.8,
        "Least perplexity over K of a codebook that is full. One of 4 codes for 24 numbers measured 1.0, a "
        "sound one of 12 codes 0.86.",
    )
    error: float = limit(
        0.25,
        "Least quantization error, over the variance of z_e. The 4 codes measured 0.39; single codebooks of "
        "sound models 0.001 to 0.20, that of 12 codes 0.03.",
    )
    placed: float = limit(
        2.0,
        "Largest ratio of that error and K^(-2 / directions) at which the codes lie well. "
        "The 4 codes measured 1.2.",
    )
    directions: float = limit(
        8.0,
        "Largest effective rank of z_e at which more codes are a way out: eight times as many leave 0.6 of "
        "the error.",
    )
    undone: float = limit(
        _harm.UNDONE,
        "Least share of the task that is still to do. Sound models measured 0.01 to 0.23, the 4 codes 0.62.",
    )


def evaluate(
    usage: Usage, match: DataMatch, metrics: TaskMetrics, level: ResidualLevel | None, limits: Limits
) -> Problems:
    """Ask whether a full codebook loses the task although its codes lie well."""
    if level is not None or "[head " in (usage.layer or ""):
        raise CannotJudge("the layer shares its vectors with other levels or groups")
    codes, rank, error = usage.num_codes, match.data_effective_rank, match.quantization_error
    if usage.perplexity_low < limits.full * codes or error < limits.error or rank > limits.directions:
        return
    placed = error / codes ** (-2 / max(rank, 1.0))
    left = _harm.undone(metrics)
    is_lost = _harm.severity(metrics) is Severity.ERROR
    if not is_lost or left is None or left <= limits.undone or placed > limits.placed:
        return
    better = metrics.bypass_loss if metrics.bypass_loss is not None else metrics.loss
    yield warning(
        f"All {codes:,} codes are in use, and yet the quantization error is {percent(error)} of z_e's "
        f"variance and the task loss {figure(metrics.loss)}, with z_e in their place {figure(better)}: "
        "the codebook is too small for its task.",
        measured("quantization_error", error, limits.error),
        measured("undone", left, limits.undone),
        measured("full", usage.perplexity_low / codes, limits.full),
        measured("placed", placed, limits.placed),
        measured("directions", rank, limits.directions),
        confidence=Confidence.MEDIUM,
    )


_FULL = Usage.healthy(
    num_codes=4, used=4, active=4, expected_used=4.0, expected_active=4.0, share=1.0, perplexity=3.99,
    perplexity_low=3.98, perplexity_high=3.99, plug_in_perplexity=3.98,
)  # fmt: skip
_COARSE = DataMatch.healthy(dim=6, data_effective_rank=2.5, quantization_error=0.39)
_LOST = TaskMetrics.healthy(
    accuracy=None,
    bypass_accuracy=None,
    chance_accuracy=None,
    loss=0.48,
    bypass_loss=0.31,
    mean_code_loss=0.78,
)

CHECK = Check(
    code="VQ407",
    name="too-few-codes",
    evaluate=evaluate,
    limits=Limits(),
    advice=Advice(
        name="more-codes",
        how="Give the codebook eight times as many codes, or add residual levels.",
        code="num_codes = 8 * num_codes",
    ),
    explained_by=tuple(code for code in COLLAPSE if code < "VQ407" or code in ("VQ606", "VQ901")),
    examples=(
        fires("4 codes for 24 numbers", _FULL, _COARSE, _LOST),
        passes("a codebook that is not full", Usage.healthy(), _COARSE, _LOST),
        passes("4 codes for 4 clusters", _FULL, _COARSE.replace(quantization_error=0.02), _LOST),
        passes("codes that lie badly", _FULL, _COARSE.replace(quantization_error=0.9), _LOST),
        passes("vectors of many directions", _FULL, _COARSE.replace(data_effective_rank=30.0), _LOST),
        passes("a task that does well", _FULL, _COARSE, _LOST.replace(loss=0.1, bypass_loss=0.09)),
        passes("healthy", Usage.healthy(), DataMatch.healthy(), TaskMetrics.healthy()),
    ),
    doc=__doc__,
)
