"""Code counts by sample: vectors of one image or clip resemble each other, so samples are kept apart."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np
from numpy.typing import ArrayLike

from vqdoctor.metrics.entropy import Floats, Ints

BLOCK = 64
"""Longest run of neighbouring vectors taken as one unit where the samples are not known."""
_MIN_BLOCKS = 32


@dataclass(frozen=True, kw_only=True, eq=False)
class GroupedCounts:
    """A sparse groups × codes table: entry i says that `group[i]` chose `code[i]` `count[i]` times.

    Attributes:
        num_codes: K.
        num_groups: groups, G, none of them empty.
        samples: the groups that the caller named; None where neighbouring vectors stand in for them.
        group: int64 [entries].
        code: int64 [entries].
        count: int64 [entries], all ≥ 1.
    """

    num_codes: int
    num_groups: int
    samples: int | None
    group: Ints
    code: Ints
    count: Ints

    @classmethod
    def from_indices(cls, indices: ArrayLike, num_codes: int, groups: ArrayLike | None = None) -> Self:
        """Count `indices` [N] by `groups` [N], the sample that each vector comes from.

        Without groups, or with only one, runs of neighbouring vectors take their place: correlation
        along the order of the vectors still shows, and in shuffled vectors nothing is lost. The
        interval then covers more of the same recording, not other recordings.

        Raises:
            ValueError: if there is no vector, or an index is outside 0 … num_codes − 1.
        """
        codes = np.asarray(indices, dtype=np.int64).ravel()
        if not codes.size:
            raise ValueError("indices: no vectors")
        if codes.min() < 0 or codes.max() >= num_codes:
            raise ValueError(f"indices: {codes.min()} … {codes.max()} outside 0 … {num_codes - 1}")
        samples = None
        if groups is not None:
            names, groups = np.unique(np.asarray(groups).ravel(), return_inverse=True)
            samples = len(names)
        if groups is None or samples == 1:
            groups = np.arange(codes.size) // max(1, min(BLOCK, codes.size // _MIN_BLOCKS))
        group = np.asarray(groups, dtype=np.int64)
        entry, count = np.unique(group * num_codes + codes, return_counts=True)
        return cls(
            num_codes=num_codes,
            num_groups=int(group.max()) + 1,
            samples=samples,
            group=entry // num_codes,
            code=entry % num_codes,
            count=count.astype(np.int64),
        )

    @cached_property
    def totals(self) -> Ints:
        """Counts of the codes over all groups, int64 [K]."""
        return self.by_code(self.count)

    @cached_property
    def sizes(self) -> Ints:
        """Vectors in each group, int64 [G]."""
        return np.bincount(self.group, weights=self.count, minlength=self.num_groups).astype(np.int64)

    @property
    def vectors(self) -> int:
        """Vectors in all groups, N."""
        return int(self.count.sum())

    def by_code(self, weights: Ints | Floats) -> Ints:
        """Sum whole-numbered `weights` [entries] by code, int64 [K]."""
        return np.bincount(self.code, weights=weights, minlength=self.num_codes).astype(np.int64)

    def merged(self, part: Ints, parts: int) -> Ints:
        """Return the counts after merging group g into `part[g]`, int64 [parts, K]."""
        cell = part[self.group] * self.num_codes + self.code
        merged = np.bincount(cell, weights=self.count, minlength=parts * self.num_codes)
        return merged.astype(np.int64).reshape(parts, self.num_codes)

    def unseen_mass(self) -> float:
        """Return the Good–Turing estimate of the usage of codes not seen yet, leaving one group out.

        It is the share of the vectors whose code occurs in their own group alone; with one vector a
        group this is the classical f1 / N.
        """
        groups_with = np.bincount(self.code, minlength=self.num_codes)
        alone = self.count[groups_with[self.code] == 1]
        return float(alone.sum() / self.vectors)

    def design_effect(self) -> float:
        """Return how many times more vectors are needed than independent ones; at least 1.

        Kish's 1 + (m − 1) ρ: m is the size-weighted mean group, and ρ compares how often two vectors
        of one group share their code with how often two vectors of different groups do.
        """
        within = float(np.sum(self.sizes.astype(np.float64) * (self.sizes - 1)))
        pairs = float(self.vectors) * (self.vectors - 1)
        if within == 0 or pairs == within:
            return 1.0
        totals = self.totals.astype(np.float64)
        same_within = float(np.sum(self.count * (self.count - 1.0)))
        same = float(np.sum(totals * (totals - 1)))
        share_between = (same - same_within) / (pairs - within)
        if share_between >= 1:
            return 1.0  # one code everywhere: nothing varies, so nothing correlates
        rho = (same_within / within - share_between) / (1 - share_between)
        return 1.0 + min(max(rho, 0.0), 1.0) * within / self.vectors
