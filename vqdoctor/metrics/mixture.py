"""A mixture of Gaussians with stick-breaking weights, and its power to tell points apart."""

from __future__ import annotations

import numpy as np

from vqdoctor.metrics.entropy import Floats, plug_in_entropy


def stick_breaking(a: Floats, b: Floats, clusters: int) -> Floats:
    """Return the mean weights [C] of sticks whose shares are Beta(a, b), with a and b after softplus.

    Blei and Jordan 2006, doi:10.1214/06-BA104: pi_c = v_c (1 - v_1) … (1 - v_{c-1}). The last cluster takes
    the rest of the stick.

    >>> stick_breaking(np.array([0.0, 0.0]), np.array([0.0, 0.0]), 3).tolist()
    [0.5, 0.25, 0.25]
    """
    a, b = np.logaddexp(0.0, a[: clusters - 1]), np.logaddexp(0.0, b[: clusters - 1])
    share = a / (a + b)
    weights: Floats = np.append(share, 1.0) * np.append(1.0, 1 - share).cumprod()
    return weights


def assignments(
    points: Floats, centres: Floats, log_variances: Floats, weights: Floats, temperature: float
) -> Floats:
    """Return the soft assignments of points [N, D] to clusters with centres [C, D], [N, C].

    They are softmax((log pi_c + log N(z; mu_c, diag s_c²)) / temperature).
    """
    precision = np.exp(-log_variances)
    distance = (
        np.square(points) @ precision.T
        - 2 * points @ (precision * centres).T
        + (precision * np.square(centres)).sum(1)
    )
    with np.errstate(divide="ignore"):  # a cluster without weight
        scores = (np.log(weights) - 0.5 * (distance + log_variances.sum(1))) / temperature
    scores = np.exp(scores - scores.max(axis=1, keepdims=True))
    found: Floats = scores / scores.sum(axis=1, keepdims=True)
    return found


def told_apart(assigned: Floats, shares: Floats) -> tuple[float, float]:
    """Return exp of the information between point and cluster, and the mean distance from the mean.

    Args:
        assigned: assignments [N, C], each row sums to one.
        shares: weight of each point [N], which sum to one.

    Returns:
        The number of clusters that are told apart, from 1; and half the mean sum of absolute differences
        between a point's assignments and the mean assignments, 0 to 1.

    >>> told_apart(np.eye(4), np.full(4, 0.25))
    (4.0, 0.75)
    >>> told_apart(np.full((3, 5), 0.2), np.full(3, 1 / 3))[1]
    0.0
    """
    mean = shares @ assigned
    information = float(plug_in_entropy(mean) - shares @ plug_in_entropy(assigned))
    distance = float(shares @ np.abs(assigned - mean).sum(axis=1)) / 2
    return float(np.exp(max(information, 0.0))), distance


def occupancy(transitions: Floats, durations: Floats) -> Floats:
    """Return the share of the time that a semi-Markov chain spends in each state, [S].

    It is that of the embedded chain's stationary law, weighed by the mean durations (Ross 1996, Stochastic
    Processes, theorem 4.8.3).

    >>> occupancy(np.array([[0.0, 1.0], [1.0, 0.0]]), np.array([1.0, 3.0])).tolist()
    [0.25, 0.75]
    """
    states = len(transitions)
    # pi P = pi, and the sum is one
    equations = np.vstack([transitions.T - np.eye(states), np.ones(states)])
    visits = np.linalg.lstsq(equations, np.append(np.zeros(states), 1.0), rcond=None)[0]
    time: Floats = np.clip(visits, 0.0, None) * durations
    return np.asarray(time / time.sum())
