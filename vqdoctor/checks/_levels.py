"""The channels of a layer without a codebook: the stuck ones and the saturated ones."""

import math

from vqdoctor.core.evidence import CodebookGeometry, ImplicitLevels

EDGE_SHARE = 0.9
"""Share of a channel's codes at its two ends at which it counts as saturated, if it had infinitely many
levels: the inner levels have a tenth of what they would have if all levels were used alike. Of three levels
two are ends, and even use puts two thirds there."""


def stuck(levels: ImplicitLevels) -> int:
    """Return how many channels use a single level."""
    return sum(used == 1 < size for size, used in zip(levels.levels, levels.used, strict=True))


def saturated(levels: ImplicitLevels, edge_share: float = EDGE_SHARE) -> int:
    """Return how many channels hardly leave the lowest and the highest level: those of two have no others."""
    return sum(
        size > 2 and 1 - share <= (1 - edge_share) * (1 - 2 / size)
        for size, share in zip(levels.levels, levels.edge_share, strict=True)
    )


def are_saturated(levels: ImplicitLevels | None) -> bool:
    """Whether most channels of the layer are saturated."""
    return levels is not None and saturated(levels) > len(levels.levels) / 2


def are_corners(geometry: CodebookGeometry | None) -> bool:
    """Whether a stored codebook is all corners of a cube, as LFQ and BSQ keep theirs: bits, and no codes.

    The 2^D different rows have one length, of sqrt(D) times the size of a number, and their mean is 0.
    """
    if geometry is None or geometry.duplicate_rows or geometry.sample_size != 2**geometry.dim:
        return False
    length = geometry.rms * math.sqrt(geometry.dim)
    alike = math.isclose(geometry.norm_min, length, rel_tol=1e-4) and math.isclose(
        geometry.norm_max, length, rel_tol=1e-4
    )
    return alike and geometry.mean_norm <= 1e-4 * length and geometry.effective_rank > geometry.dim - 1e-2
