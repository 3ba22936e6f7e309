"""The HDP stage: soft clusters of the codes, with weights from truncated stick-breaking on two levels."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional

START = 0.3
"""Standard deviation of fresh centres: about that of the outputs of a fresh encoder."""


class StickBreaking(nn.Module):
    """Weights of C clusters: each takes a share v of the stick that those before it leave, the last the rest.

        pi_c = v_c (1 - v_1) … (1 - v_{c-1}),   v_c ~ Beta(a_c, b_c),   a priori Beta(1, alpha)

    Blei and Jordan 2006, Variational inference for Dirichlet process mixtures, doi:10.1214/06-BA104.

    Attributes:
        log_alpha: log of the concentration, [].
        beta_a: a before softplus, [C - 1].
        beta_b: b before softplus, [C - 1].
    """

    def __init__(self, clusters: int) -> None:
        super().__init__()
        self.log_alpha = nn.Parameter(torch.zeros(()))
        # a stick of which each cluster takes the same: E v_c = 1 / (C - c), counted from zero
        left = torch.arange(clusters - 1, 0, -1, dtype=torch.float32)
        self.beta_a = nn.Parameter(torch.log(torch.expm1(torch.ones(clusters - 1))))
        self.beta_b = nn.Parameter(torch.log(torch.expm1(left)))

    @property
    def beta(self) -> torch.distributions.Beta:
        """The distributions of the shares, [C - 1]."""
        return torch.distributions.Beta(functional.softplus(self.beta_a), functional.softplus(self.beta_b))

    def log_weights(self) -> torch.Tensor:
        """Return log E[pi], [C]; the weights sum to one. The shares are independent, so means multiply."""
        a, b = functional.softplus(self.beta_a), functional.softplus(self.beta_b)
        log_share, log_rest = torch.log(a) - torch.log(a + b), torch.log(b) - torch.log(a + b)
        none = log_rest.new_zeros(1)
        return torch.cat([log_share, none]) + torch.cat([none, log_rest.cumsum(0)])

    def divergence(self) -> torch.Tensor:
        """Return the sum of KL(Beta(a, b) || Beta(1, alpha)) over the shares, in nats."""
        alpha = self.log_alpha.exp()
        prior = torch.distributions.Beta(torch.ones_like(alpha), alpha)
        return torch.distributions.kl_divergence(self.beta, prior).sum()


class DirichletMixture(nn.Module):
    """One level: a mixture of C Gaussians with diagonal variances and stick-breaking weights.

    Attributes:
        cluster_centers: means, [C, D].
        cluster_log_vars: log-variances, [C, D].
        current_temperature: the divisor of the log-probabilities before the softmax, buffer [].
    """

    current_temperature: torch.Tensor

    def __init__(self, clusters: int, dim: int, temperature: float) -> None:
        super().__init__()
        self.stick_breaking = StickBreaking(clusters)
        self.cluster_centers = nn.Parameter(START * torch.randn(clusters, dim))
        self.cluster_log_vars = nn.Parameter(torch.zeros(clusters, dim))
        self.register_buffer("current_temperature", torch.tensor(temperature))

    def log_joint(self, z: torch.Tensor) -> torch.Tensor:
        """Return log pi_c + log N(z; mu_c, diag s_c²) of z [..., D], [..., C]."""
        precision = torch.exp(-self.cluster_log_vars)
        # the square is multiplied out, so that no [..., C, D] is built
        distance = (
            z.square() @ precision.T
            - 2 * z @ (precision * self.cluster_centers).T
            + (precision * self.cluster_centers.square()).sum(1)
        )
        constant = self.cluster_log_vars.sum(1) + z.shape[-1] * math.log(2 * math.pi)
        return self.stick_breaking.log_weights() - 0.5 * (distance + constant)

    def forward(self, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the soft assignments of z [B, T, D], [B, T, C], and the level's loss.

        The loss is the negative log-likelihood of z, a number, and the divergence of the weights, as a
        share of the B·T·D numbers. It moves the clusters and leaves z alone.
        """
        assignments = torch.softmax(self.log_joint(z) / self.current_temperature, dim=-1)
        likelihood = torch.logsumexp(self.log_joint(z.detach()), dim=-1).sum()
        return assignments, (self.stick_breaking.divergence() - likelihood) / z.numel()


class HDP(nn.Module):
    """Two levels: the base assigns z_q, the group assigns what the base makes of it.

    The group's input is w z_q + (1 - w) m, where m is the mean of the base's centres under its assignments.
    The two levels stand for the two levels of a hierarchical Dirichlet process (Teh et al. 2006,
    doi:10.1198/016214506000000302); they share no atoms otherwise.

    Attributes:
        residual_weight: w before the sigmoid, [].
    """

    def __init__(self, clusters: int, dim: int, *, base_clusters: int, temperature: float = 1.0) -> None:
        super().__init__()
        self.base_hdp = DirichletMixture(base_clusters, dim, temperature)
        self.group_hdp = DirichletMixture(clusters, dim, temperature)
        self.residual_weight = nn.Parameter(torch.zeros(()))

    def forward(self, z_q: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the group's assignments of z_q [B, T, D], [B, T, C], and the loss of both levels."""
        assignments, base_loss = self.base_hdp(z_q)
        summary = assignments @ self.base_hdp.cluster_centers
        weight = torch.sigmoid(self.residual_weight)
        groups, group_loss = self.group_hdp(weight * z_q + (1 - weight) * summary)
        return groups, base_loss + group_loss
