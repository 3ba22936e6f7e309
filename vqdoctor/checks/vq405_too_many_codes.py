"""The codebook has as many codes as the training data has vectors, or more.

## Why it matters
A code has to be chosen to be trained. With no more vectors than codes some codes are never chosen, however
long the training is, or each is one vector: the codebook learns the samples by heart. Revival only changes
which codes are left over.

## How to read it
The vectors of the whole train split over the codes. From a file it is the sum of the EMA counts, which is the
vectors of a batch, times the recorded updates of an epoch. Measured with a revival of dead codes: 7 vectors
per code are enough to keep 99.8 % of 4,096 codes active. So more vectors than codes are not judged here,
although k-means libraries ask for 39 per code.

## Remedy
fewer-codes-or-more-data: take a codebook of a tenth of the vectors or less, or crops of more samples.

## References
- facebookresearch/faiss, `ClusteringParameters.min_points_per_centroid`: 39
"""

from vqdoctor.checks._words import Problems, figure, measured, warning
from vqdoctor.core.check import Advice, CannotJudge, Check, CheckLimits, fires, limit, passes
from vqdoctor.core.evidence import CodeExpiry
from vqdoctor.core.levels import Confidence


class Limits(CheckLimits):
    """The vectors per code that are too few."""

    per_code: float = limit(
        1.0,
        "Most vectors of the training data per code at which there are too many codes. Up to one, codes are "
        "left over or are single vectors by arithmetic; with 7 and a revival 4,086 of 4,096 were active.",
    )


def evaluate(expiry: CodeExpiry, limits: Limits) -> Problems:
    """Compare the vectors of the training data with the codes."""
    if expiry.epoch_vectors is None:
        raise CannotJudge("how many vectors the whole training data has is unknown")
    per_code = expiry.epoch_vectors / expiry.sample_size
    if per_code <= limits.per_code:
        yield warning(
            f"The codebook has {expiry.sample_size:,} codes, and the training data "
            f"{expiry.epoch_vectors:,.0f} vectors, {figure(per_code)} per code: codes are left over, and the "
            "others learn single samples.",
            measured("vectors_per_code", per_code, limits.per_code),
            confidence=Confidence.HIGH if expiry.source == "batch" else Confidence.MEDIUM,
        )


CHECK = Check(
    code="VQ405",
    name="too-many-codes",
    evaluate=evaluate,
    limits=Limits(),
    advice=Advice(
        name="fewer-codes-or-more-data",
        how="Choose a codebook that is small against the training vectors, or train on more data.",
        code="num_codes = max(16, training_vectors // 40)",
    ),
    explained_by=("VQ901",),
    examples=(
        fires(
            "2,048 codes for 60 images of 16 positions",
            CodeExpiry.healthy(sample_size=2048, epoch_vectors=960.0),
        ),
        fires(
            "a file that records 3 updates an epoch",
            CodeExpiry.healthy(source="checkpoint", sample_size=4096, epoch_vectors=3072.0),
        ),
        passes("healthy", CodeExpiry.healthy()),
        passes("seven vectors per code", CodeExpiry.healthy(sample_size=4096, epoch_vectors=28_752.0)),
    ),
    doc=__doc__,
)
