"""The codes and the vectors that are compared with them live on different scales.

## Why it matters
Where codes are put on a sphere and vectors are not, all codes have nearly the same Euclidean distance from a
vector. The nearest one carries little information about the vector, z_q is far from z_e
whatever the codebook learns, and the encoder grows away from it. The counts may look well used all the same.

## How to read it
From a file: all codes have one length, point exactly along their EMA sums, and the means of their vectors are
longer than the codes. The mean of vectors is never longer than the longest of them, so the vectors do not lie
on that sphere. A cosine lookup compares directions, and its codebook is healthy: where vectors are
normalised, the means are at most as long as the codes; and a layout that is known for its cosine lookup is
not judged. A home-made layer may also look up by angle and sum vectors as they are. That cannot be told from
a file, hence the medium confidence. Where a model runs, the vectors that are looked up
are measured: the factor on all codes that fits them best is 1 at most where both sides are normalised.

The reverse takes a running model: the vectors that are looked up all have one length, and the codes that they
choose are longer. The shortest codes then win whatever their direction. Codes that are means of such vectors
are never longer than these, so the codes follow the vectors as they were before the normalisation. A layer
whose choices the nearest direction explains as well is not judged.

## Remedy
one-scale: normalise both sides before the lookup, or neither. A retraining with sound-ema stores codes at the
scale at which the layer compares vectors.

## References
- Yu et al. 2021, Vector-quantized Image Modeling with Improved VQGAN, arXiv:2110.04627: both sides normalised
- van den Oord et al. 2017, arXiv:1711.00937, appendix A.1: codes are means, and not normalised
"""

from __future__ import annotations

from collections.abc import Iterator

from vqdoctor.checks import _scale
from vqdoctor.checks._words import figure, measured, problem
from vqdoctor.core.check import Advice, Check, CheckLimits, NoEvidence, fires, limit, passes
from vqdoctor.core.evidence import DataMatch, EmaRelation, LookupScale
from vqdoctor.core.finding import Problem
from vqdoctor.core.levels import Confidence, Severity


class Limits(CheckLimits):
    """The largest differences of the scales that are healthy."""

    longer: float = limit(
        _scale.LONGER,
        "Largest share by which the means of the vectors may be longer than codes of one length. Cosine "
        "codebooks "
        "whose vectors are normalised measured under 0; the model that this check was made for 3.9.",
    )
    codes_longer: float = limit(
        _scale.LONGER,
        "Largest share by which codes may be longer than the vectors of one length that choose them. A "
        "sound layer that normalises vectors measured -0.06; four EMA layers whose codes follow the vectors "
        "as they are 1.0 to 1.6.",
    )


def evaluate(
    relation: EmaRelation | None, scale: LookupScale | None, match: DataMatch | None, limits: Limits
) -> Iterator[Problem]:
    """Compare the length of the means with the one length of the codes; then the lengths in the lookup."""
    if relation is None and scale is None:
        raise NoEvidence("no evidence of kind ema-relation or lookup-scale")
    if scale is not None and _scale.vectors_on_sphere_alone(scale, limits.codes_longer):
        yield problem(
            Severity.ERROR,
            f"All vectors have length {figure(scale.vector_norm)} when they are looked up, and the codes "
            f"that they choose {figure(scale.code_norm)}: vectors are normalised before the lookup, and "
            "codes are not.",
            measured("length_ratio", scale.code_norm / scale.vector_norm, 1 + limits.codes_longer),
            measured("code_norm", scale.code_norm),
            measured("vector_norm", scale.vector_norm),
        )
    elif relation is not None and _scale.on_sphere_alone(relation, limits.longer):
        known = relation.lookup == "euclidean" or scale is not None
        if scale is not None and scale.code_norm > (1 + limits.longer) * relation.code_norm:
            scale = None  # it was looked up among codes that no update had shortened yet
        if scale is not None and scale.factor <= 1 + limits.longer:
            return  # the vectors that are looked up lie on the codes' sphere, whatever the sums add up
        looked_up = () if scale is None else (measured("factor", scale.factor, 1 + limits.longer),)
        yield problem(
            Severity.ERROR,
            f"All {relation.sample_size:,} codes in use have length {figure(relation.code_norm)}, and the "
            f"means of "
            f"their vectors {figure(relation.mean_norm)}: codes are normalised after each update, and "
            f"vectors are not before the lookup.",
            measured("length_ratio", relation.mean_norm / relation.code_norm, 1 + limits.longer),
            measured("code_norm", relation.code_norm),
            measured("mean_norm", relation.mean_norm),
            *looked_up,
            confidence=Confidence.HIGH if known else Confidence.MEDIUM,
            decide_with="" if known or match is not None else "--data batch.npz",
        )


CHECK = Check(
    code="VQ310",
    name="scale-mismatch",
    evaluate=evaluate,
    limits=Limits(),
    remedies=("sound-ema",),
    advice=Advice(
        name="one-scale",
        how="Normalise codes and vectors before the lookup, or neither, and train again.",
        code=(
            "z_e = F.normalize(z_e, dim=1)   # before lookup, sums and losses\n"
            "codebook.copy_(sums / counts[:, None])   # or: neither is normalised"
        ),
        names=("codebook", "counts", "sums"),
    ),
    explained_by=("VQ901", "VQ309", "VQ103", "VQ302", "VQ306", "VQ311"),
    examples=(
        fires(
            "codes on the unit sphere, vectors five times as long",
            EmaRelation.healthy(
                scale=0.2, scale_spread=0.08, code_norm=1.0, code_norm_spread=5e-8, mean_norm=4.91
            ),
        ),
        fires(
            "a file with codes as long as vectors, which the layer's next update brings to length one",
            EmaRelation.healthy(
                scale=0.065, scale_spread=0.5, code_norm=1.0, code_norm_spread=5e-8, mean_norm=15.5
            ),
            LookupScale.healthy(code_norm=15.5, vector_norm=16.5, factor=1.0),
        ),
        fires(
            "vectors of length one among codes that follow them as they were",
            EmaRelation.healthy(code_norm=2.6, mean_norm=2.6),
            LookupScale.healthy(code_norm=2.6, vector_norm=1.0, vector_spread=2e-8, factor=0.34),
        ),
        passes(
            "vectors of length one among their means",
            EmaRelation.healthy(code_norm=0.77, mean_norm=0.77),
            LookupScale.healthy(code_norm=0.77, vector_norm=1.0, vector_spread=2e-8, factor=1.0),
        ),
        passes("a sound EMA", EmaRelation.healthy()),
        passes(
            "a lookup that normalises vectors, whose sums are taken from vectors as they are",
            EmaRelation.healthy(
                scale=0.2, scale_spread=0.08, code_norm=1.0, code_norm_spread=5e-8, mean_norm=4.91
            ),
            LookupScale.healthy(code_norm=1.0, vector_norm=1.0, factor=0.9),
        ),
        passes(
            "a cosine codebook: the means of unit vectors are shorter than one",
            EmaRelation.healthy(
                scale=1.3, scale_spread=0.2, code_norm=1.0, code_norm_spread=5e-8, mean_norm=0.77
            ),
        ),
        passes(
            "a layout that looks up by angle",
            EmaRelation.healthy(
                scale=0.2,
                scale_spread=0.08,
                code_norm=1.0,
                code_norm_spread=5e-8,
                mean_norm=4.91,
                lookup="cosine",
            ),
        ),
    ),
    doc=__doc__,
)
