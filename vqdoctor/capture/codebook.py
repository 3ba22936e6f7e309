"""The stored tensors of one VQ layer inside a running model, read and written as [K, D]."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch.nn import functional

from vqdoctor.layouts.view import QuantizerView


@dataclass(frozen=True, kw_only=True, eq=False)
class LiveCodebook:
    """One layer's codes, EMA counts and EMA sums; whoever writes codes here writes all that belongs to them.

    Attributes:
        view: what the layer is, and where its rows lie in its tensors.
        tensors: role ("codebook", "counts", "sums", "initted", …) to the model's own tensor.
    """

    view: QuantizerView
    tensors: Mapping[str, torch.Tensor]

    @property
    def writable(self) -> bool:
        """Whether new codes can be written."""
        return self.view.writable

    @property
    def counts(self) -> torch.Tensor | None:
        """The EMA counts [K], a view of the model's own; None where it keeps none."""
        stored = self.tensors.get("counts")
        return None if stored is None else self.view.place.counts(stored.detach())

    @property
    def sums(self) -> torch.Tensor | None:
        """The EMA sums [K, D], a view of the model's own; None where it keeps none."""
        stored = self.tensors.get("sums")
        return None if stored is None else self.view.place.codes(stored.detach())

    @torch.no_grad()
    def codes(self) -> torch.Tensor:
        """Return a copy of the codes, float32 [K, D]."""
        if not self.view.derived:
            codes: torch.Tensor = self.view.place.codes(self.tensors["codebook"].detach()).float()
            return codes.clone()
        sums, counts = self.sums, self.counts
        assert sums is not None
        assert counts is not None
        return sums.float() / counts.float().clamp_min(1e-5).unsqueeze(1)

    @torch.no_grad()
    def write(
        self,
        rows: torch.Tensor,
        codes: torch.Tensor,
        counts: torch.Tensor | float | None = None,
        optimizer: torch.optim.Optimizer | None = None,
    ) -> None:
        """Write codes, in place, so that neither the next EMA update nor the next step undoes them.

        The EMA sums become codes × smoothed counts, the optimizer forgets what it remembers of these rows,
        and the flag of data-driven initialisation is set, without which the next forward overwrites them.

        Args:
            rows: which codes, int64 [n].
            codes: float [n, D].
            counts: their EMA counts, [n] or one for all; None keeps what is stored.
            optimizer: the optimizer that may remember gradients of these rows.
        """
        codes = codes.to(self.tensors["codebook"].device)
        if self.view.lookup == "cosine":
            codes = functional.normalize(codes, dim=1)
        if not self.view.derived:
            self._put("codebook", rows, codes)
        own = self.counts
        if own is not None:
            if counts is not None:
                own[rows] = torch.as_tensor(counts, dtype=own.dtype, device=own.device)
            if "sums" in self.tensors:
                self._put("sums", rows, codes * self._smoothed(own)[rows].unsqueeze(1))
        if "initted" in self.tensors:
            self.tensors["initted"].fill_(1)
        if optimizer is not None:
            self.forget(rows, optimizer)

    def forget(self, rows: torch.Tensor, optimizer: torch.optim.Optimizer) -> None:
        """Clear what an optimizer remembers of these codes."""
        stored = self.tensors["codebook"]
        for parameter, state in optimizer.state.items():
            if parameter is stored or parameter.data_ptr() == stored.data_ptr():
                for value in state.values():
                    if isinstance(value, torch.Tensor) and value.shape == stored.shape:
                        self.view.place.codes(value)[rows] = 0

    def _put(self, role: str, rows: torch.Tensor, values: torch.Tensor) -> None:
        stored = self.view.place.codes(self.tensors[role].detach())
        stored[rows] = values.to(stored.dtype)

    def _smoothed(self, counts: torch.Tensor) -> torch.Tensor:
        """Return the counts as the layer divides its sums by them."""
        epsilon, total = self.view.smoothing, counts.sum()
        if not epsilon:
            return counts
        return (counts + epsilon) * total / (total + len(counts) * epsilon)
