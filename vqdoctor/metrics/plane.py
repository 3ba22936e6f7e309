"""Two clouds of points in the plane of their two principal components."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vqdoctor.core.frozen import frozen
from vqdoctor.metrics.entropy import Floats
from vqdoctor.metrics.geometry import Rows

ROUNDING = 1e-9
"""A component shorter than this share of the other one is rounding, and no direction."""


@frozen
class Plane:
    """The clouds in the plane.

    Attributes:
        points: each cloud's points, float64 [N, 2].
        shares: share of the variance along each component, two numbers.
    """

    points: tuple[Floats, ...]
    shares: tuple[float, float]


def principal_plane(*clouds: Rows) -> Plane:
    """Return finite clouds of points [N, D] in the plane in which they vary most.

    Each cloud weighs the same, however many points it has, so a distance between two clouds shows as one. The
    sign of a component is that of its largest element.

    >>> plane = principal_plane(np.array([[3, 0, 0], [-3, 0, 0]]), np.array([[0, 1, 0], [0, -1, 0]]))
    >>> [points.round(6).tolist() for points in plane.points]
    [[[3.0, 0.0], [-3.0, 0.0]], [[0.0, 1.0], [0.0, -1.0]]]
    >>> [round(share, 6) for share in plane.shares]
    [0.9, 0.1]
    """
    given = [cloud.astype(np.float64) for cloud in clouds if len(cloud)]
    center = np.mean([cloud.mean(axis=0) for cloud in given], axis=0)
    scaled = np.concatenate([(cloud - center) / np.sqrt(len(cloud)) for cloud in given])
    tall = scaled.shape[0] >= scaled.shape[1]
    squares, directions = np.linalg.eigh(scaled.T @ scaled if tall else scaled @ scaled.T)
    squares = np.clip(squares, 0.0, None)
    axes = directions[:, ::-1][:, :2] if tall else scaled.T @ directions[:, ::-1][:, :2]
    axes = _unit(np.pad(axes, ((0, 0), (0, 2 - axes.shape[1]))))
    total = float(squares.sum()) or 1.0
    most = [*squares[::-1][:2] / total, 0.0]
    return Plane(
        points=tuple((cloud.astype(np.float64) - center) @ axes for cloud in clouds),
        shares=(float(most[0]), float(most[1])),
    )


def _unit(axes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the columns of `axes` [D, 2] with length one, or 0, and their largest element positive."""
    lengths = np.linalg.norm(axes, axis=0)
    signs = np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])])
    unit: NDArray[np.float64] = axes * signs / np.where(lengths > ROUNDING * lengths.max(), lengths, np.inf)
    return unit
