"""The HSMM stage: hidden states with explicit durations over the steps of a sequence."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType

import torch
from torch import nn
from torch.nn import functional

from vqdoctor.reference.chain.segments import Scores, posterior, viterbi


class DurationModel(nn.Module):
    """How long a segment of each state lasts, in steps: 1 to `longest`, renormalised there."""

    def __init__(self, longest: int) -> None:
        super().__init__()
        self.longest = longest

    def log_density(self, durations: torch.Tensor) -> torch.Tensor:
        """Return the log-density of durations [M, 1] in each state up to a constant, [M, S]."""
        raise NotImplementedError

    def forward(self) -> torch.Tensor:
        """Return the log-probabilities of the durations 1 to M, [M, S]."""
        device = next(self.parameters()).device
        steps = torch.arange(1.0, self.longest + 1, device=device).unsqueeze(1)
        return functional.log_softmax(self.log_density(steps), dim=0)


class NegativeBinomial(DurationModel):
    """d - 1 ~ NB(r, p), of mean r p / (1 - p): Johnson and Willsky 2013, arXiv:1203.1365, section 2.

    Attributes:
        log_r: log r, [S].
        logit_p: logit of p, [S].
    """

    def __init__(self, states: int, longest: int, expected: float) -> None:
        super().__init__(longest)
        self.log_r = nn.Parameter(torch.full((states,), math.log(2.0)))
        self.logit_p = nn.Parameter(torch.full((states,), math.log((expected - 1) / 2)))

    def log_density(self, durations: torch.Tensor) -> torch.Tensor:
        """Return log C(d + r - 2, d - 1) + r log(1 - p) + (d - 1) log p."""
        r, more = self.log_r.exp(), durations - 1
        ways = torch.lgamma(more + r) - torch.lgamma(r) - torch.lgamma(more + 1)
        return ways + r * functional.logsigmoid(-self.logit_p) + more * functional.logsigmoid(self.logit_p)


class Poisson(DurationModel):
    """d - 1 ~ Poisson(rate).

    Attributes:
        log_rate: log of the rate, [S].
    """

    def __init__(self, states: int, longest: int, expected: float) -> None:
        super().__init__(longest)
        self.log_rate = nn.Parameter(torch.full((states,), math.log(expected - 1)))

    def log_density(self, durations: torch.Tensor) -> torch.Tensor:
        """Return (d - 1) log rate - rate - log (d - 1)!."""
        more = durations - 1
        return more * self.log_rate - self.log_rate.exp() - torch.lgamma(more + 1)


class Gaussian(DurationModel):
    """A normal density at the whole steps.

    Attributes:
        mean: mean, [S].
        log_std: log of the standard deviation, [S].
    """

    def __init__(self, states: int, longest: int, expected: float) -> None:
        super().__init__(longest)
        self.mean = nn.Parameter(torch.full((states,), expected))
        self.log_std = nn.Parameter(torch.full((states,), math.log(expected / 2)))

    def log_density(self, durations: torch.Tensor) -> torch.Tensor:
        """Return -(d - mean)² / 2 std² - log std."""
        return -0.5 * ((durations - self.mean) / self.log_std.exp()).square() - self.log_std


DURATIONS: Mapping[str, type[NegativeBinomial] | type[Poisson] | type[Gaussian]] = MappingProxyType(
    {"negative-binomial": NegativeBinomial, "poisson": Poisson, "gaussian": Gaussian}
)


class FixedTransitions(nn.Module):
    """The same transition probabilities at every step; no state follows itself.

    Attributes:
        log_trans_matrix: scores of the transitions before the softmax, [S, S], from a row.
        self_trans_mask: True on the diagonal, buffer [S, S].
    """

    self_trans_mask: torch.Tensor

    def __init__(self, states: int) -> None:
        super().__init__()
        self.log_trans_matrix = nn.Parameter(torch.zeros(states, states))
        self.register_buffer("self_trans_mask", torch.eye(states, dtype=torch.bool))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return log-probabilities for inputs [B, T, C], [1, T, S, S]."""
        masked = self.log_trans_matrix.masked_fill(self.self_trans_mask, -math.inf)
        return functional.log_softmax(masked, dim=-1).expand(1, inputs.shape[1], -1, -1)


class InputTransitions(nn.Module):
    """Transition probabilities that depend on the step's input; no state follows itself.

    Attributes:
        transition_net: input [C] to scores [S·S].
    """

    def __init__(self, features: int, states: int) -> None:
        super().__init__()
        self.transition_net = nn.Sequential(nn.Linear(features, states * states))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return log-probabilities for inputs [B, T, C], [B, T, S, S]."""
        scores: torch.Tensor = self.transition_net(inputs)
        states = math.isqrt(scores.shape[-1])
        scores = scores.view(*scores.shape[:-1], states, states)
        diagonal = torch.eye(states, dtype=torch.bool, device=scores.device)
        return functional.log_softmax(scores.masked_fill(diagonal, -math.inf), dim=-1)


class HSMM(nn.Module):
    """Input [B, T, C] to the probabilities of S hidden states at each step.

    The emission scores are those of a small network, without a density of the input: trained by the labels it
    is a semi-Markov conditional random field (Sarawagi and Cohen 2004, NeurIPS 17).

    Attributes:
        log_init_probs: scores of the first state before the softmax, [S].
        current_state: the state at the end of the last sequence that was decoded, buffer [].
        duration_remaining: how long it is expected to go on then, in steps, buffer [].
    """

    current_state: torch.Tensor
    duration_remaining: torch.Tensor

    def __init__(
        self,
        features: int,
        states: int,
        *,
        durations: str = "negative-binomial",
        longest: int = 48,
        expected: float = 5.0,
        input_transitions: bool = False,
        width: int = 32,
    ) -> None:
        """Build it.

        Args:
            features: numbers of an input, C.
            states: hidden states, S, at least two.
            durations: one of `DURATIONS`.
            longest: longest duration in steps, M.
            expected: mean duration of every state at the start, in steps.
            input_transitions: whether transitions depend on the input.
            width: of the emission network.

        Raises:
            ValueError: if there is no such duration model, or fewer than two states.
        """
        super().__init__()
        if states < 2 or durations not in DURATIONS:
            raise ValueError(f"an HSMM with {states} states and {durations!r} durations cannot be built")
        self.duration_model = DURATIONS[durations](states, longest, expected)
        self.transition_model: FixedTransitions | InputTransitions = (
            InputTransitions(features, states) if input_transitions else FixedTransitions(states)
        )
        self.emission_net = nn.Sequential(nn.Linear(features, width), nn.ReLU(), nn.Linear(width, states))
        self.log_init_probs = nn.Parameter(torch.zeros(states))
        self.register_buffer("current_state", torch.tensor(0))
        self.register_buffer("duration_remaining", torch.tensor(0.0))

    def scores(self, inputs: torch.Tensor) -> Scores:
        """Return the log-probabilities for inputs [B, T, C]."""
        return Scores(
            initial=functional.log_softmax(self.log_init_probs, dim=0),
            transition=self.transition_model(inputs),
            emission=self.emission_net(inputs),
            duration=self.duration_model(),
        )

    def forward(self, inputs: torch.Tensor) -> tuple[torch.Tensor, Scores]:
        """Return the posterior probabilities of the states, [B, T, S], and the scores that they are from."""
        scores = self.scores(inputs)
        return posterior(scores), scores

    @torch.no_grad()
    def decode(self, scores: Scores) -> torch.Tensor:
        """Return the most probable states, int64 [B, T], and note the end of the last sequence."""
        path, _ = viterbi(scores)
        state = path[-1, -1]
        lasted = int((path[-1].flip(0) != state).long().cumsum(0).eq(0).sum())
        longer = scores.duration[lasted:, state].exp()
        more = torch.arange(1.0, len(longer) + 1, device=longer.device)
        self.current_state.fill_(int(state))
        self.duration_remaining.copy_((longer * more).sum() / longer.sum().clamp_min(1e-30))
        return path
