"""The use of a layer: its level of a residual stack, its encoder's variety, its codes in time."""

from vqdoctor.core.evidence.base import Evidence


class LevelUse(Evidence):
    """One level of a stack of quantizers. Sample size: its codes, K.

    Attributes:
        level: its number, from 1.
        levels: how many there are.
        written: whether an EMA update ever wrote its counts; None where it has none.
        others_written: levels of the stack whose EMA counts were written.
        left: root mean square distance of its input to the mean input, over that of the first level: what
            the levels before leave to it. None without data.
        first_perplexity: perplexity of the first level's codes; None without data.
        placed: whether its counts are still the whole numbers of an initialisation on data.
    """

    level: int
    levels: int
    written: bool | None
    others_written: int
    left: float | None = None
    first_perplexity: float | None = None
    placed: bool = False


LevelUse.HEALTHY = LevelUse(
    layer="vq", source="batch", sample_size=256, level=3, levels=4, written=True, others_written=3, left=0.3,
    first_perplexity=190.0,
)  # fmt: skip


class EncoderSpread(Evidence):
    """How much the encoder's output varies, and how much its input does. Sample size: z_e vectors.

    A spread is the root mean square distance to the mean, over the root mean square length: 1 where the
    mean is zero, 0 where everything is equal.

    Attributes:
        output_spread: spread of the z_e vectors.
        input_spread: spread of the samples x; None where the batch holds no tensor.
        input_rank: effective rank of the samples about their mean: 0 for equal ones, 2 for one tone at
            all phases. None where the batch holds no tensor.
        samples: samples that the last two rest on.
    """

    output_spread: float
    input_spread: float | None = None
    input_rank: float | None = None
    samples: int = 0


EncoderSpread.HEALTHY = EncoderSpread(
    layer="vq", source="batch", sample_size=28_752, output_spread=0.89, input_spread=0.56, input_rank=20.5,
    samples=1_000,
)  # fmt: skip


class CodeSequences(Evidence):
    """The codes of a layer whose positions are a sequence in time. Sample size: vectors.

    Attributes:
        sequences: how many sequences.
        length: positions in each.
        used: codes chosen at least once.
        constant_share: share of the sequences that are one code from end to end.
        dwell: mean length of a run of equal codes, in positions.
        transition_entropy: entropy of the next code given the present one, in bits (plain estimate).
        same_share: share of the sequences that have a position's most frequent code there, averaged over
            the positions: 1 where all sequences are equal.
        within: share of the variance of z_e that lies inside sequences, and not between them.
    """

    sequences: int
    length: int
    used: int
    constant_share: float
    dwell: float
    transition_entropy: float
    same_share: float
    within: float


CodeSequences.HEALTHY = CodeSequences(
    layer="vq", source="batch", sample_size=6_400, sequences=100, length=64, used=240, constant_share=0.0,
    dwell=1.9, transition_entropy=3.1, same_share=0.06, within=0.7,
)  # fmt: skip
