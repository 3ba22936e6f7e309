"""The stage behind a VQ layer that clusters its codes and follows them through hidden states."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from vqdoctor.core.evidence import ACTIVE_SHARE, SequenceStage
from vqdoctor.core.frozen import frozen
from vqdoctor.layouts.view import QuantizerView
from vqdoctor.metrics.entropy import Floats, plug_in_entropy
from vqdoctor.metrics.mixture import assignments, occupancy, stick_breaking, told_apart
from vqdoctor.probes._ema_rows import written_counts
from vqdoctor.probes.file._context import FileContext, each_layer
from vqdoctor.probes.probe import Missing

CENTRES = "cluster_centers"
"""The means of a mixture's clusters: no codebook, though they have the shape of one."""
MOST = 1 << 24
"""Numbers in a table that is read or computed."""
LARGEST = 1 << 18
"""Durations, times states, over which a Gaussian is summed up."""
NARROWEST = 1e-6
"""Least standard deviation of a Gaussian, in steps."""
LONGEST = 1e12
"""The longest expected duration that is reported, in steps."""


def _of_gaussian(mean: Floats, log_std: Floats) -> Floats:
    """Return the mean of a normal density at the whole steps from 1 on."""
    std = np.maximum(np.exp(log_std), NARROWEST)
    top = float((mean + 8 * std).max())
    if not 1 < top < LARGEST / len(mean):
        return np.maximum(mean, 1.0)
    steps = np.arange(1.0, np.ceil(top) + 1)[:, None]
    score = -0.5 * np.square((steps - mean) / std)
    weights = np.exp(score - score.max(axis=0))
    expected: Floats = (weights * steps).sum(axis=0) / weights.sum(axis=0)
    return expected


LAWS: Mapping[str, tuple[tuple[str, str], Callable[[Floats, Floats], Floats]]] = {
    # the mean of 1 + NB(r, p) is 1 + r p / (1 - p), and p / (1 - p) is exp(logit p)
    "negative binomial": (("log_r", "logit_p"), lambda log_r, logit_p: 1 + np.exp(log_r + logit_p)),
    "poisson": (("log_rate", "log_rate"), lambda log_rate, _: 1 + np.exp(log_rate)),
    "gaussian": (("mean", "log_std"), _of_gaussian),
}
"""Laws of the durations d of a hidden semi-Markov model: names of their parameters, and the expected duration
in steps. d - 1 is negative binomial (Johnson and Willsky 2013, arXiv:1203.1365, section 2, as in
`torch.distributions.NegativeBinomial`) or Poisson; a Gaussian is of d itself. A model may cut durations off
at a longest one, of which the file has no record."""
FIRST_OF_LAW = tuple(f"duration_model.{first}" for (first, _), _ in LAWS.values())


def measure(context: FileContext, view: QuantizerView) -> SequenceStage:
    """Return the clusters and states of the sequence stage, for the codes of a layer.

    Raises:
        Missing: if the file has no such stage of the layer's dimension.
    """
    read = _Tensors(context)
    levels = [name for name in read.names if name.endswith(CENTRES) and read.fits(name, view.dim)]
    states = [name for name in read.names if name.endswith(FIRST_OF_LAW)]
    if not levels and not states:
        raise Missing("the file has no sequence stage behind the codes")
    if sum(other.dim == view.dim for other in context.views) > 1:
        raise Missing("several VQ layers may feed the sequence stage")
    counts, codes = written_counts(view), view.codebook.astype(np.float64)
    used = counts is not None and counts.min() >= 0 and counts.sum() > 0
    shares = counts / counts.sum() if counts is not None and used else np.full(len(codes), 1 / len(codes))
    found = SequenceStage(
        source="checkpoint",
        sample_size=len(codes),
        code_perplexity=float(np.exp(plug_in_entropy(shares))),
    )
    if levels:
        found = _with_clusters(found, read, levels, codes, shares)
    return _with_states(found, read, states[0].rpartition(".")[0]) if states else found


class _Tensors:
    """The tensors of a file, by name."""

    def __init__(self, context: FileContext) -> None:
        self._stored = context.checkpoint.tensors
        self.names = tuple(self._stored)

    def fits(self, name: str, dim: int) -> bool:
        """Whether a table of centres has rows of that dimension, and log-variances beside it."""
        beside = self._stored.get(f"{name.removesuffix(CENTRES)}cluster_log_vars")
        shape = self._stored[name].shape
        return len(shape) == 2 and shape[1] == dim and beside is not None and beside.shape == shape

    def get(self, name: str) -> Floats | None:
        """Return a tensor's values; None where there is none, it is too large, or a value is not finite."""
        stored = self._stored.get(name)
        if stored is None or not 0 < stored.numel <= MOST:
            return None
        values = np.asarray(stored.read(), dtype=np.float64)
        return values if np.isfinite(values).all() else None

    def number(self, name: str, otherwise: float) -> float:
        """Return a tensor's only value, or the other number where there is none."""
        values = self.get(name)
        return otherwise if values is None or values.size != 1 else float(values.item())


@frozen
class _Level:
    """One mixture of the stage: its centres [C, D], log-variances [C, D], weights [C] and temperature."""

    centres: Floats
    log_variances: Floats
    weights: Floats
    temperature: float

    def assign(self, points: Floats) -> Floats:
        """Return the assignments of points [N, D], [N, C]."""
        return assignments(points, self.centres, self.log_variances, self.weights, self.temperature)


def _level(read: _Tensors, name: str) -> _Level | None:
    """Return a mixture by the name of its centres; without shares of a stick all its weights are equal."""
    path = name.removesuffix(CENTRES)
    centres, log_variances = read.get(name), read.get(f"{path}cluster_log_vars")
    if centres is None or log_variances is None:
        return None
    a, b = (read.get(f"{path}stick_breaking.beta_{letter}") for letter in "ab")
    weights = np.full(len(centres), 1 / len(centres))
    if a is not None and b is not None and a.shape == b.shape and a.size >= len(centres) - 1:
        weights = stick_breaking(a.ravel(), b.ravel(), len(centres))
    temperature = read.number(f"{path}current_temperature", 1.0)
    return _Level(
        centres=centres,
        log_variances=log_variances,
        weights=weights,
        temperature=temperature if temperature > 0 else 1.0,
    )


def _with_clusters(
    found: SequenceStage, read: _Tensors, names: list[str], codes: Floats, shares: Floats
) -> SequenceStage:
    """Add what the last level hands on; its input is a mean of the codes and of the first level's summary."""
    levels = [_level(read, name) for name in names[:2]]
    first, last = levels[0], levels[-1]
    if first is None or last is None or len(codes) * max(len(first.centres), len(last.centres)) > MOST:
        return found
    with np.errstate(over="ignore", invalid="ignore"):
        assigned = first.assign(codes)
        if len(levels) > 1:
            root = names[1].removesuffix(CENTRES).rstrip(".").rpartition(".")[0]
            share = 1 / (1 + np.exp(-read.number(f"{root}.residual_weight", 0.0)))
            assigned = last.assign(share * codes + (1 - share) * (assigned @ first.centres))
        apart, spread = told_apart(assigned, shares)
    if not np.isfinite(apart + spread):
        return found
    return found.replace(
        clusters=assigned.shape[1], clusters_used=_active(shares @ assigned), told_apart=apart, spread=spread
    )


def _with_states(found: SequenceStage, read: _Tensors, path: str) -> SequenceStage:
    """Add the states, their expected durations, and the time that is spent in each."""
    for law, (names, expected) in LAWS.items():
        first, second = (read.get(f"{path}.{name}") for name in names)
        if first is None or second is None or first.ndim != 1 or first.shape != second.shape:
            continue
        with np.errstate(over="ignore"):
            durations = np.minimum(expected(first, second), LONGEST)
        found = found.replace(states=len(first), law=law, durations=tuple(map(float, durations)))
        root = path.removesuffix("duration_model")
        matrix = read.get(f"{root}transition_model.log_trans_matrix")
        if matrix is None or matrix.shape != (len(first), len(first)) or len(first) < 2:
            return found
        matrix = np.where(np.eye(len(matrix), dtype=bool), -np.inf, matrix)
        transitions = np.exp(matrix - matrix.max(axis=1, keepdims=True))
        time = occupancy(transitions / transitions.sum(axis=1, keepdims=True), durations)
        return found.replace(states_used=_active(time))
    return found


def _active(shares: Floats) -> int:
    """Return how many have more than a tenth of an even share, as with active codes."""
    return int((shares * len(shares) > ACTIVE_SHARE).sum())


PROBE = each_layer(SequenceStage, measure)
