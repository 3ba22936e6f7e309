"""Exact inference in a hidden semi-Markov model: a sequence is a row of segments with explicit durations.

A segment has a state s and a duration d of 1 to M steps. The first state comes from `initial`, the next from
`transition` at its first step, d from `duration`, and each step scores `emission`. The last segment may go on
beyond the sequence: it counts with the probability to last at least as long as it is seen (Guédon 2003,
doi:10.1198/1061860032030). All in log space, all sequences of a batch at once, in O(T S (M + S)).
"""

from __future__ import annotations

from dataclasses import replace

import torch

from vqdoctor.core.frozen import frozen

FORBIDDEN = 100.0
"""The cost of a step in a state of another class, in nats: as good as impossible, and small enough for sums
over hundreds of steps to keep their precision."""


@frozen
class Scores:
    """The log-probabilities of a batch of B sequences of T steps, with S states.

    Attributes:
        initial: of the first segment's state, [S].
        transition: from a state (row) to the state of the segment that starts at a step, [B or 1, T, S, S].
        emission: of each step's input in each state, [B, T, S].
        duration: of the durations 1 to M, [M, S].
    """

    initial: torch.Tensor
    transition: torch.Tensor
    emission: torch.Tensor
    duration: torch.Tensor

    @property
    def survival(self) -> torch.Tensor:
        """Log-probability to last for at least 1 to M steps, [M, S]."""
        return self.duration.flip(0).logcumsumexp(0).flip(0)

    @property
    def cumulated(self) -> torch.Tensor:
        """Sum of the emissions before each step, and of all, [B, T + 1, S]."""
        return torch.nn.functional.pad(self.emission.cumsum(1), (0, 0, 1, 0))


@frozen
class Forward:
    """The forward pass.

    Attributes:
        starts: log-probability that a segment of a state starts at a step, with all before it, [B, T, S].
        ends: that one ends before the steps 1 to T - 1, with all before them, [B, T - 1, S].
        log_likelihood: of each sequence, [B].
    """

    starts: torch.Tensor
    ends: torch.Tensor
    log_likelihood: torch.Tensor


def forward(scores: Scores) -> Forward:
    """Sum over all segmentations, from the first step to the last."""
    before, steps = scores.cumulated, scores.emission.shape[1]
    starts = [scores.initial.expand_as(scores.emission[:, 0])]
    ends: list[torch.Tensor] = []
    relative = [starts[0]]  # less all emissions before the start
    for t in range(1, steps):
        ends.append(before[:, t] + torch.logsumexp(_windows(relative, scores.duration), dim=0))
        starts.append(torch.logsumexp(ends[-1].unsqueeze(2) + scores.transition[:, t], dim=1))
        relative.append(starts[-1] - before[:, t])
    last = before[:, steps] + torch.logsumexp(_windows(relative, scores.survival), dim=0)
    empty = scores.emission[:, :0]
    return Forward(
        starts=torch.stack(starts, 1),
        ends=torch.stack(ends, 1) if ends else empty,
        log_likelihood=torch.logsumexp(last, dim=1),
    )


def label_loss(scores: Scores, labels: torch.Tensor, classes: int) -> torch.Tensor:
    """Return -log p(labels | inputs), mean over the steps; state s belongs to class s mod `classes`.

    Args:
        scores: of the sequences.
        labels: class of each step, int64 [B, T].
        classes: number of classes.
    """
    owner = torch.arange(scores.emission.shape[2], device=labels.device) % classes
    held = replace(scores, emission=scores.emission - FORBIDDEN * (owner != labels.unsqueeze(2)))
    missing = forward(scores).log_likelihood - forward(held).log_likelihood
    return missing.sum() / labels.numel()


def posterior(scores: Scores) -> torch.Tensor:
    """Return the probability of each state at each step, given the whole sequence, [B, T, S]."""
    seen = forward(scores)
    before, steps = scores.cumulated, scores.emission.shape[1]
    longest = len(scores.duration)
    # future[t]: log-probability of the rest, where a segment of a state has ended before t
    future: list[torch.Tensor] = []
    begun: list[torch.Tensor] = []  # likewise where one starts at t; both from the end backwards
    for t in range(steps - 1, -1, -1):
        ways = []
        if future:
            ended = torch.stack(future[: -longest - 1 : -1])
            ended = ended + before[:, t + 1 : t + 1 + len(ended)].transpose(0, 1)
            ways.append(ended + scores.duration[: len(ended), None])
        if steps - t <= longest:
            ways.append((before[:, steps] + scores.survival[steps - t - 1])[None])
        begun.append(torch.logsumexp(torch.cat(ways), dim=0) - before[:, t])
        if t:
            future.append(torch.logsumexp(scores.transition[:, t] + begun[-1].unsqueeze(1), dim=2))
    whole = seen.log_likelihood[:, None, None]
    starting = torch.exp(seen.starts + torch.stack(begun[::-1], 1) - whole)
    if future:
        ending = torch.exp(seen.ends + torch.stack(future[::-1], 1) - whole)
        starting = torch.cat([starting[:, :1], starting[:, 1:] - ending], 1)
    # a state is on from its start to its end
    return starting.cumsum(1).clamp(0, 1)


@torch.no_grad()
def viterbi(scores: Scores) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the most probable state of each step, int64 [B, T], and the path's log-probability, [B].

    The path is that of the most probable segmentation, states and durations together.
    """
    before, steps = scores.cumulated, scores.emission.shape[1]
    relative = [scores.initial.expand_as(scores.emission[:, 0])]
    lengths: list[torch.Tensor] = []
    sources: list[torch.Tensor] = []
    for t in range(1, steps):
        ended, length = _windows(relative, scores.duration).max(dim=0)
        started, source = ((before[:, t] + ended).unsqueeze(2) + scores.transition[:, t]).max(dim=1)
        relative.append(started - before[:, t])
        lengths.append(length + 1)
        sources.append(source)
    last, length = (before[:, steps] + _windows(relative, scores.survival)).max(dim=0)
    best, states = last.max(dim=1)
    path = torch.empty(scores.emission.shape[:2], dtype=torch.int64)
    for row in range(len(path)):
        state, end, run = int(states[row]), steps, int(length[row, states[row]]) + 1
        while True:
            start = end - run
            path[row, start:end] = state
            if not start:
                break
            state, end = int(sources[start - 1][row, state]), start
            run = int(lengths[end - 1][row, state])
    return path, best


def _windows(relative: list[torch.Tensor], log_durations: torch.Tensor) -> torch.Tensor:
    """Return the ways to be at the step after the last start, by duration from 1, [min(t, M), B, S]."""
    latest = torch.stack(relative[: -len(log_durations) - 1 : -1])
    return latest + log_durations[: len(latest), None]
