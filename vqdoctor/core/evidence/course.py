"""A layer over its whole training."""

from vqdoctor.core.evidence.base import Evidence


class Course(Evidence):
    """A layer over its training, as a trace records it. Sample size: the intervals that are listed.

    Each tuple has one number for each interval whose usage is known, in the order of the steps; of a long
    training as many of them as are listed, evenly spaced. The codes are those of training batches.

    Attributes:
        num_codes: codes in the codebook, K.
        steps: optimizer steps done.
        perplexity: of the codes of the interval's last steps, in codes.
        active: codes above 0.1 / K of the usage.
        revived: codes that jumped since the interval before, as a revival moves them; 0 where unknown.
        z_e_norm: root mean square length of the z_e.
        code_norm: root mean square length of the codes; empty without a codebook.
    """

    num_codes: int
    steps: tuple[int, ...]
    perplexity: tuple[float, ...]
    active: tuple[int, ...]
    revived: tuple[int, ...]
    z_e_norm: tuple[float, ...]
    code_norm: tuple[float, ...] = ()


Course.HEALTHY = Course(
    layer="vq", source="trace", sample_size=12, num_codes=256, steps=tuple(range(100, 1300, 100)),
    perplexity=(177.0, 148.0, 173.0, 170.0, 181.0, 176.0, 183.0, 180.0, 186.0, 184.0, 187.0, 185.0),
    active=(239, 225, 243, 241, 244, 240, 246, 243, 247, 244, 248, 246),
    revived=(0, 0, 71, 0, 24, 0, 9, 0, 4, 0, 2, 0),
    z_e_norm=(4.3, 17.5, 23.8, 25.0, 25.6, 26.1, 26.3, 26.4, 26.5, 26.6, 26.7, 26.8),
    code_norm=(4.0, 11.5, 16.7, 19.3, 21.0, 22.4, 23.4, 24.1, 24.6, 25.0, 25.2, 25.4),
)  # fmt: skip
