"""Layers without a codebook (FSQ, LFQ, BSQ), whose codes are combinations of levels."""

from vqdoctor.core.evidence.base import Evidence


class ImplicitLevels(Evidence):
    """How the channels of such a layer use their levels. Sample size: codes.

    No code of it can die, but a channel can: it stays at one level, or saturates at its ends.

    Attributes:
        levels: how many levels each channel has.
        used: how many of them were seen.
        edge_share: share of the codes at the lowest or the highest level of each channel; about
            2 / levels where all are used evenly.
        scale: root mean square of the layer's input z_e; None where its input is not seen.
    """

    levels: tuple[int, ...]
    used: tuple[int, ...]
    edge_share: tuple[float, ...]
    scale: float | None = None


ImplicitLevels.HEALTHY = ImplicitLevels(
    layer="vq", source="batch", sample_size=28_752,
    levels=(8, 5, 5), used=(8, 5, 5), edge_share=(0.28, 0.07, 0.52), scale=0.9,
)  # fmt: skip
