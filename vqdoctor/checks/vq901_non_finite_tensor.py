"""The file holds values that are NaN or infinite.

## Why it matters
One NaN in a codebook row makes that row win or lose every comparison, depending on the library; one
NaN in the sums comes back with every update. No other figure of such a layer can be
trusted, so this comes first in the report.

## How to read it
Counted in the layer's codebook, counts and sums, and separately in the rest of the file. Of large
tensors outside the VQ layers only samples are read; `--verify` reads every value. The usual causes
are half precision in the distance computation and a learning rate that is too high.

## Remedy
restore-finite: go back to the last file without such values; run the quantizer in float32.

## References
- rosinality/vq-vae-2-pytorch#65: infinite latent loss under mixed precision
- lucidrains/vector-quantize-pytorch#144: NaN from distances in half precision
"""

from vqdoctor.checks._words import Problems, error, listed, measured
from vqdoctor.core.check import Check, CheckLimits, fires, limit, passes
from vqdoctor.core.evidence import NonFinite


class Limits(CheckLimits):
    """How many such values are allowed."""

    values: float = limit(0.0, "Largest number of NaN and infinite values. No healthy file has any.")


def evaluate(nonfinite: NonFinite, limits: Limits) -> Problems:
    """Fire on any NaN or infinite value."""
    values = nonfinite.nan + nonfinite.inf
    if values > limits.values:
        found = " and ".join(
            f"{count:,} {what}"
            for count, what in ((nonfinite.nan, "NaN"), (nonfinite.inf, "infinite"))
            if count
        )
        at_least = "at least " if nonfinite.sampled else ""
        hold = "holds" if nonfinite.tensor_count == 1 else "hold"
        word = "value" if values == 1 else "values"
        yield error(
            f"{listed(nonfinite.tensors, nonfinite.tensor_count)} {hold} {at_least}{found} {word}.",
            measured("non_finite_values", values, limits.values),
            measured("tensors", nonfinite.tensor_count),
        )


CHECK = Check(
    code="VQ901",
    name="non-finite-tensor",
    evaluate=evaluate,
    limits=Limits(),
    scope="both",
    remedies=("restore-finite",),
    examples=(
        fires("NaN in a codebook row", NonFinite.healthy(tensors=("vq.embedding",), tensor_count=1, nan=64)),
        fires(
            "infinite moments in the optimizer",
            NonFinite.healthy(
                layer=None, tensors=("optimizer.state.3.exp_avg_sq",), tensor_count=1, inf=2, sampled=True
            ),
        ),
        passes("all finite", NonFinite.healthy()),
    ),
    doc=__doc__,
)
