"""Evidence for pictures, which no check judges: a few hundred points, however large the model is."""

from vqdoctor.core.evidence.base import Evidence

MOST_POINTS = 300
"""Codes, and z_e vectors, that a plane holds at most: 30 kB of JSON, and what an eye tells apart."""
MOST_MODULES = 96
"""Modules that a gradient profile holds at most."""
MOST_BINS, MOST_CODES = 64, 16
"""Bins of positions, and codes by their number, that a map of codes over positions holds at most."""


class PrincipalPlane(Evidence):
    """The codes and z_e in two principal components of both, which weigh the same. Sample size: the codes, K.

    Of many codes, evenly spaced ones in the order of their use are listed, the most used first. Of many z_e
    vectors, a random subset is listed, by the seed.

    Attributes:
        vectors: z_e vectors that were seen; 0 from a file alone.
        first: share of the variance along the first component.
        second: share of the variance along the second one.
        code_x: the listed codes along the first component.
        code_y: the same along the second one.
        code_use: how often each listed code is chosen, as a multiple of 1/K; empty where unknown.
        vector_x: the listed z_e along the first component.
        vector_y: the same along the second one.
    """

    vectors: int
    first: float
    second: float
    code_x: tuple[float, ...]
    code_y: tuple[float, ...]
    code_use: tuple[float, ...] = ()
    vector_x: tuple[float, ...] = ()
    vector_y: tuple[float, ...] = ()


PrincipalPlane.HEALTHY = PrincipalPlane(
    layer="vq", source="batch", sample_size=256, vectors=28_752, first=0.31, second=0.22,
    code_x=(4.1, -7.9, 0.3, 9.6), code_y=(6.2, 1.4, -8.8, -0.9), code_use=(3.1, 1.4, 0.8, 0.3),
    vector_x=(3.8, -7.1, 0.9, 10.2, -1.7), vector_y=(5.9, 2.0, -9.3, -0.2, 0.6),
)  # fmt: skip


class GradientProfile(Evidence):
    """The losses' gradients along the network, in the order of its run. Sample size: parameters.

    A gradient is the root mean square over the elements of a module's parameters, on one training batch in
    train mode; 0 where no path leads there. Modules below one name are put together where there are too many.

    Attributes:
        modules: names of the modules that hold parameters, and of the VQ layers.
        is_vq: which of them are VQ layers.
        task: gradient of the task loss.
        vq: gradient of the VQ loss times its weight; empty where the task reports none.
        vq_weight: that weight; None where it is unknown, and the gradient is that of the unweighted loss.
    """

    modules: tuple[str, ...]
    is_vq: tuple[bool, ...]
    task: tuple[float, ...]
    vq: tuple[float, ...] = ()
    vq_weight: float | None = None


GradientProfile.HEALTHY = GradientProfile(
    source="batch", sample_size=60_000, modules=("encoder.0", "encoder.2", "vq", "decoder.0", "head"),
    is_vq=(False, False, True, False, False), task=(0.012, 0.009, 0.0, 0.006, 0.011),
    vq=(0.0009, 0.0014, 0.0, 0.0, 0.0), vq_weight=0.1,
)  # fmt: skip


class PositionUse(Evidence):
    """Which codes are chosen at which positions of a sample. Sample size: vectors.

    Neighbouring positions are put together into bins where there are too many.

    Attributes:
        positions: positions in a sample.
        grid: their height and width, where the layer's input has such; else empty.
        bin_size: positions in a bin; the last bin may hold fewer.
        perplexity: exp of the plain entropy of each bin's codes.
        codes: the most used codes by their number, most used first.
        shares: share of each of these codes in the choices of each bin, bin after bin.
    """

    positions: int
    grid: tuple[int, ...] = ()
    bin_size: int = 1
    perplexity: tuple[float, ...]
    codes: tuple[int, ...]
    shares: tuple[float, ...]


PositionUse.HEALTHY = PositionUse(
    layer="vq", source="batch", sample_size=7_188, positions=4, grid=(2, 2),
    perplexity=(61.0, 58.0, 66.0, 63.0), codes=(17, 202),
    shares=(0.03, 0.01, 0.02, 0.02, 0.01, 0.03, 0.02, 0.01),
)  # fmt: skip
