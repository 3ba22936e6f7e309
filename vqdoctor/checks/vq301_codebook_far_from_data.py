"""The codebook does not lie where the encoder's outputs lie.

## Why it matters
Only the codes nearest to the data can be chosen. If the codebook was initialised around zero and
z_e lies elsewhere, a few codes on the near side get everything and the rest never moves. With z_e
three standard deviations off per dimension, 25 to 28 of 1,024 random codes are chosen at the start,
against 97 % of them without the offset.

## How to read it
Four numbers, any of which is enough, and two that are together. The offset between the mean z_e and the mean
code, in standard deviations of z_e. The quantization error over the variance of z_e: 1 means that the
codebook is no better than a single code at the mean. The distance from a typical code to its nearest z_e: two
random vectors of the data are about 1.4 standard deviations apart, so a code that has none nearer than 1.5
lies outside the data. Where Adam moves the codes, the size of z_e over that of the codes and the longest way
that a code can have gone, the learning rate times the updates: codes that start near 0 do not reach a z_e
that is ten times as large. Together: z_e is many times as large as the codes, and quantizing loses most of
its variance. When z_e itself has collapsed, its standard deviation is tiny and the first three become large;
that is a symptom, and the report names the cause. Where it hardly varies at all, this check is skipped, and
VQ507 judges. Where half of the codes are copies and a typical one lies among the data, the middle of the
codebook is that of one vector, and its offset is not judged.

## Remedy
data-init: initialise the codebook from encoder outputs (k-means). normalise-before-vq: a norm layer
before the VQ layer keeps z_e where the codes are.

## References
- Łańcucki et al. 2020, arXiv:2005.08520: data-dependent initialisation and batch normalisation
- Zeghidour et al. 2021, SoundStream, arXiv:2107.03312: k-means on the first batch
- lucidrains/vector-quantize-pytorch#19: which distribution to initialise from
"""

from vqdoctor.checks._encoder import CONSTANT
from vqdoctor.checks._reach import BEYOND, beyond
from vqdoctor.checks._words import Problems, error, figure, measured, percent
from vqdoctor.core.check import CannotJudge, Check, CheckLimits, fires, limit, passes
from vqdoctor.core.evidence import CodebookGeometry, DataMatch, WeightDecay


class Limits(CheckLimits):
    """When the codebook counts as far from the data."""

    mean_offset: float = limit(
        2.0,
        "Largest distance of the mean code from the mean z_e, in standard deviations of z_e. Trained "
        "models measured at most 0.6, even with most codes dead.",
    )
    quantization_error: float = limit(
        1.0,
        "Largest quantization error, as a share of the variance of z_e. At 1 a single code at the mean "
        "would do as well; four codes already measured 0.49.",
    )
    nearest_data: float = limit(
        1.5,
        "Largest distance of a typical code from its nearest z_e, in standard deviations of z_e. Two "
        "random vectors of the data are 1.4 apart; healthy codebooks measured 0.1 to 0.2.",
    )
    scale_ratio: float = limit(
        5.0,
        "Largest size of z_e over that of the codes where quantizing loses most of the variance. 83 layers "
        "of healthy models measured up to 2.2. One with most codes dead measured 6.0, and lost 21 % of the "
        "variance. Behind an encoder gain that was in part learnt away: 10 and 16.",
    )
    lost: float = limit(
        0.5,
        "Share of the variance of z_e that such a codebook loses: most of it. The two layers lost 0.75 and "
        "0.77; healthy late residual levels lose up to 0.78, of a z_e 1.9 times as large as the codes.",
    )
    copies: float = limit(
        0.5,
        "Share of copies among the codes from which their middle is that of one vector, if a typical code "
        "has data near it. Codebooks off the data measured no copy, one that was placed on padding 0.73.",
    )
    beyond: float = limit(
        BEYOND,
        "Largest size of z_e, over the size of the codes and the longest way that a code can have gone: that "
        "from which VQ314 calls z_e out of reach. Two layers behind an encoder gain of 40 measured 43 and "
        "47, two whose encoder had learned the gain away 0.6 and 0.8.",
    )


def evaluate(
    match: DataMatch, decay: WeightDecay | None, geometry: CodebookGeometry | None, limits: Limits
) -> Problems:
    """Compare the distances with their limits; the first limit that is broken makes the sentence."""
    if match.data_std < CONSTANT * match.data_rms * match.dim**0.5:
        raise CannotJudge("z_e hardly varies, so its standard deviation is too small to measure in (VQ507)")
    sentences = {
        "mean_offset": f"The middle of the codebook lies {figure(match.mean_offset)} standard deviations "
        "away from the middle of the encoder's outputs, so only the codes on the near side can be chosen.",
        "quantization_error": f"Quantizing loses {percent(match.quantization_error)} of the variance of the "
        "encoder's outputs: a single code at their mean would do as well as this codebook.",
        "nearest_data": f"A typical code is {figure(match.nearest_data)} standard deviations away from the "
        "nearest encoder output: most of the codebook lies where there is no data.",
    }
    broken = [name for name in sentences if getattr(match, name) > getattr(limits, name)]
    copied = geometry is not None and geometry.duplicate_rows >= limits.copies * geometry.sample_size
    if copied and broken == ["mean_offset"]:
        broken = []
    out_of_reach = None if decay is None else beyond(match, decay)
    if out_of_reach is not None and out_of_reach > limits.beyond:
        yield error(
            f"z_e has size {figure(match.data_rms)} and the codes {figure(match.codebook_rms)}, and the "
            f"optimizer can have moved a code by {figure((decay and decay.reach) or 0.0)} at most: z_e is "
            "out of their reach.",
            measured("beyond_reach", out_of_reach, limits.beyond),
            *(measured(name, getattr(match, name), getattr(limits, name)) for name in broken),
            remedies=("normalise-before-vq", "data-init"),
        )
    elif not broken and match.scale_ratio > limits.scale_ratio and match.quantization_error > limits.lost:
        yield error(
            f"z_e is {figure(match.scale_ratio)} times as large as the codes, and quantizing loses "
            f"{percent(match.quantization_error)} of its variance: the codes lie in the middle of z_e.",
            measured("scale_ratio", match.scale_ratio, limits.scale_ratio),
            measured("quantization_error", match.quantization_error, limits.lost),
            remedies=("normalise-before-vq", "data-init"),
        )
    elif broken:
        figures = (measured(name, getattr(match, name), getattr(limits, name)) for name in broken)
        yield error(sentences[broken[0]], *figures)


_OFF_CENTRE = DataMatch.healthy(
    dim=32, data_rms=3.16, data_std=5.66, data_mean_norm=17.0, codebook_rms=1.0, codebook_std=5.66,
    mean_offset=3.0, quantization_error=7.6, scale_ratio=3.16, nearest_data=3.1,
)  # fmt: skip
_CAUSES = (
    "VQ901", "VQ309", "VQ310", "VQ101", "VQ102", "VQ103", "VQ105", "VQ108", "VQ113", "VQ404", "VQ204",
    "VQ201", "VQ306", "VQ311", "VQ302", "VQ304", "VQ205", "VQ202", "VQ606", "VQ314", "VQ315", "VQ308",
    "VQ307", "VQ319",
)  # fmt: skip
_TOO_LARGE = DataMatch.healthy(
    codebook_rms=12.0, codebook_std=96.0, scale_ratio=0.13, quantization_error=0.97, nearest_data=7.4,
)  # fmt: skip

CHECK = Check(
    code="VQ301",
    name="codebook-far-from-data",
    evaluate=evaluate,
    limits=Limits(),
    remedies=("data-init", "normalise-before-vq"),
    explained_by=_CAUSES,
    examples=(
        fires("a codebook around zero, z_e three standard deviations off in every dimension", _OFF_CENTRE),
        fires("codes on a far larger scale than z_e, around the same mean", _TOO_LARGE),
        fires(
            "codes at the start of an embedding, behind an encoder whose output is 40 times as large",
            DataMatch.healthy(
                data_rms=23.9,
                data_std=95.3,
                codebook_rms=0.11,
                codebook_std=0.44,
                mean_offset=0.08,
                quantization_error=0.99,
                scale_ratio=215.0,
                nearest_data=0.13,
            ),
            WeightDecay.healthy(reach=0.4),
        ),
        fires(
            "codes in the middle of a z_e that is ten times as large",
            DataMatch.healthy(scale_ratio=10.0, quantization_error=0.75, nearest_data=0.3),
        ),
        passes("healthy", DataMatch.healthy(), WeightDecay.healthy(reach=5.3)),
        passes(
            "three quarters of the codes are copies of one vector of the data",
            DataMatch.healthy(mean_offset=2.45, quantization_error=0.007, nearest_data=0.16),
            CodebookGeometry.healthy(duplicate_rows=188),
        ),
        passes(
            "most codes dead, but among the data",
            DataMatch.healthy(mean_offset=0.37, quantization_error=0.21, scale_ratio=5.98, nearest_data=0.22),
        ),
    ),
    doc=__doc__,
)
