"""The channels of a layer without a codebook: the stuck ones and the saturated ones."""

from vqdoctor.core.evidence import ImplicitLevels

EDGE_SHARE = 0.9


def stuck(levels: ImplicitLevels) -> int:
    """Return how many channels use a single level."""
    return sum(used == 1 < size for size, used in zip(levels.levels, levels.used, strict=True))


def saturated(levels: ImplicitLevels, edge_share: float = EDGE_SHARE) -> int:
    """Return how many channels of three levels or more hardly leave the lowest and the highest."""
    return sum(
        size > 2 and share >= edge_share for size, share in zip(levels.levels, levels.edge_share, strict=True)
    )


def are_saturated(levels: ImplicitLevels | None) -> bool:
    """Whether most channels of the layer are saturated."""
    return levels is not None and saturated(levels) > len(levels.levels) / 2
