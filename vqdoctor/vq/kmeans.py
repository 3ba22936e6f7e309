"""k-means in torch: Lloyd in chunks, so that the [N, K] distances are never in memory at once."""

from __future__ import annotations

import torch

from vqdoctor.core.frozen import frozen

CHUNK_BYTES = 4 * 2**20
"""Size of the table of distances that is held at once, and written over by each chunk: what stays in the
processor's caches. A fresh table for each chunk measured up to twice as slow."""
BLOCK = 32
"""Centres among which the least distance is found before its index. torch finds a least value 5 times as fast
as its index, which over all centres takes about as long as the product of points and centres."""
JITTER = 0.01
"""How far a copied code lies from its original, in standard deviations of the data: near enough to share its
vectors, and ten times as far as what VQ503 calls a copy."""


@frozen
class Clusters:
    """The result of k-means on the N points that were used.

    Attributes:
        centres: float [K, D].
        counts: points nearest to each centre, int64 [K].
        inertia: sum of squared distances of the points to their nearest centre.
    """

    centres: torch.Tensor
    counts: torch.Tensor
    inertia: float


@torch.no_grad()
def nearest(points: torch.Tensor, centres: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the nearest centre of each point and the squared distance to it.

    Args:
        points: float [N, D].
        centres: float [K, D].

    Returns:
        Indices int64 [N] (of equally near centres the first, up to rounding) and squared distances
        float [N].
    """
    indices = _indices(points, centres)
    rows = max(1, CHUNK_BYTES // (4 * points.shape[1]))
    distances = [
        (chunk - centres[index]).square().sum(dim=1)
        for chunk, index in zip(torch.split(points, rows), torch.split(indices, rows), strict=True)
    ]
    return indices, torch.cat(distances)


def _indices(points: torch.Tensor, centres: torch.Tensor) -> torch.Tensor:
    """Return the nearest centre of each point, int64 [N].

    |p - c|^2 is expanded around the mean centre, so that a common offset costs no precision.
    """
    middle = centres.mean(dim=0)
    copies = -len(centres) % BLOCK  # of the last centre, which fill up the last block
    moved = torch.cat([centres, centres[-1:].expand(copies, -1)]) - middle
    squares = moved.square().sum(dim=1)
    chunk_rows = max(1, CHUNK_BYTES // (4 * len(moved)))
    table = points.new_empty(min(chunk_rows, len(points)), len(moved))
    row = torch.arange(len(table), device=points.device)
    found = []
    for chunk in torch.split(points, chunk_rows):
        distances = table[: len(chunk)]  # |c|^2 - 2pc, which lacks only the point's own |p|^2
        torch.addmm(squares, chunk - middle, moved.T, alpha=-2.0, out=distances)
        blocks = distances.view(len(chunk), len(moved) // BLOCK, BLOCK)
        block = blocks.amin(dim=2).argmin(dim=1)
        found.append(block * BLOCK + blocks[row[: len(chunk)], block].argmin(dim=1))
    return torch.cat(found).clamp_max(len(centres) - 1)


@torch.no_grad()
def kmeans(
    points: torch.Tensor,
    num_codes: int,
    *,
    generator: torch.Generator,
    iterations: int = 20,
    points_per_code: int = 256,
) -> Clusters:
    """Cluster the points by Lloyd's algorithm, started from random points.

    A centre without points moves to the point that is worst served at that moment, no two to equal
    points, so that no centre is wasted: one can be empty in the end only where fewer than K points
    differ, or because the last update took its points. More than `points_per_code` points a centre
    add time, not quality: a random subset is used. The result depends on the generator alone, on a
    GPU up to the rounding of sums.

    Args:
        points: float [N, D], N >= num_codes.
        num_codes: centres, K.
        generator: the source of randomness; the global random state is not touched.
        iterations: updates of the centres, at most: it stops where no centre moves.
        points_per_code: the most points used per centre.

    Raises:
        ValueError: if there are fewer points than centres, or a point is not finite.
    """
    if len(points) < num_codes:
        raise ValueError(f"k-means for {num_codes} centres needs as many points, got {len(points)}")
    _refuse_non_finite(points)
    # a random order serves twice: the head of it is the subset, and the head of that the start
    order = torch.randperm(len(points), generator=generator)[: num_codes * points_per_code]
    points = points.detach()[order.to(points.device)].float()
    centres = points[:num_codes].clone()
    for _ in range(iterations):
        moved = _update(points, centres)
        if torch.equal(moved, centres):
            break
        centres = moved
    indices, distances = nearest(points, centres)
    counts = torch.bincount(indices, minlength=num_codes)
    return Clusters(centres=centres, counts=counts, inertia=float(distances.double().sum()))


@torch.no_grad()
def codes_from_data(
    points: torch.Tensor, num_codes: int, *, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a codebook where the data is, and its counts, from any number of points above none.

    It is that of `kmeans`. Where fewer than K points differ, each becomes a code, and the codes that
    are left are copies of these, an equal number of each (one more of those with the most points),
    moved by a hundredth of the data's standard deviation. A code and its copies share its points: a
    copy that counted none would be moved to the origin by the next EMA update.

    Args:
        points: z_e, float [N, D].
        num_codes: codes, K.
        generator: the source of randomness; the global random state is not touched.

    Returns:
        Codes float [K, D] and their counts float [K], all above 0, whose sum is the points used.

    Raises:
        ValueError: if there is no point, or one is not finite.
    """
    if not len(points):
        raise ValueError("a codebook cannot be placed where the data is: there are no points")
    found = kmeans(points, min(num_codes, len(points)), generator=generator)
    used = found.counts.nonzero().squeeze(1)
    fullest = used[found.counts[used].argsort(descending=True, stable=True)]
    missing = num_codes - len(used)
    copied = fullest.repeat(-(-missing // len(fullest)))[:missing]
    origin = torch.cat([used, copied])
    codes = found.centres[origin]
    noise = torch.randn(missing, codes.shape[1], generator=generator).to(codes)
    # equal points have no spread: their size, or else 1, has to do
    least = 0.001 * float(codes.abs().max()) or 0.001
    spread = points.float().std(dim=0, correction=0).clamp_min(least)
    codes[len(used) :] += JITTER * spread * noise
    return codes, (found.counts / torch.bincount(origin, minlength=len(found.counts)))[origin]


def _refuse_non_finite(points: torch.Tensor) -> None:
    """Raise a ValueError that names the first of the points [N, D] with a NaN or an infinity."""
    bad = (~points.isfinite().all(dim=1)).nonzero().squeeze(1)
    if len(bad):
        raise ValueError(
            f"k-means needs finite points: {len(bad)} of {len(points)} are not, "
            f"the first is point {int(bad[0])}"
        )


def _update(points: torch.Tensor, centres: torch.Tensor) -> torch.Tensor:
    """Return the means of the points nearest to each centre; empty centres move to ill-served points."""
    indices = _indices(points, centres)
    counts = torch.bincount(indices, minlength=len(centres)).unsqueeze(1)
    sums = torch.zeros_like(centres).index_add_(0, indices, points)
    moved = torch.where(counts > 0, sums / counts, centres)
    empty = (counts == 0).nonzero()[:, 0]
    if len(empty):
        served = (points - centres[indices]).square().sum(dim=1)
        ill_served = _farthest(points, served, len(empty))
        moved[empty[: len(ill_served)]] = ill_served
    return moved


def _farthest(points: torch.Tensor, distances: torch.Tensor, most: int) -> torch.Tensor:
    """Return up to `most` of the points [N, D], the farthest first, no two equal and none at distance 0."""
    pool = most
    while True:
        pool = min(16 * pool, len(points))
        far = distances.topk(pool)
        distinct, which = torch.unique(points[far.indices], dim=0, return_inverse=True)
        if len(distinct) >= most or pool == len(points):
            break
    # equal points are equally far
    distances = distances.new_zeros(len(distinct)).scatter_(0, which, far.values)
    chosen = distances.topk(min(most, int(distances.count_nonzero()))).indices
    return torch.index_select(distinct, 0, chosen)
