"""Watching every write to a tensor inside a forward pass: before and after do not tell who wrote between."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

SAME_WAY = 0.999
"""Cosine above which a row was given another length and not another place, as by a normalisation."""
MOST = 64
"""Writes of one forward pass that are looked at: of more, as of code by code, the first."""
MOVED = 0.01
"""A row counts as moved when it travels over this share of its length, before or after."""
BACK = 0.1
"""A row is back when it ends within this share of its way from where it started."""


class Writes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """While active, follows in-place writes to `tensors` of rows [..., D], also through views and `.data`.

    Attributes:
        tensors: what is watched, by name.
    """

    def __init__(self, tensors: Mapping[str, torch.Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.tensors = tensors
        self._before = {name: rows_of(t) for name, t in tensors.items()}
        self._moves: dict[str, dict[str, torch.Tensor]] = {}
        self._seen = dict.fromkeys(tensors, 0)

    def __torch_dispatch__(
        self,
        func: Any,
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Run the operation, and look at the tensors that it may have written to."""
        result = func(*args, **(kwargs or {}))
        if func._schema.is_mutable:
            touched = {_storage(t) for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)}
            for name, tensor in self.tensors.items():
                if _storage(tensor) in touched and self._seen[name] < MOST:
                    self._note(name, rows_of(tensor))
        return result

    def undone(self, name: str) -> int:
        """Return how many rows were moved by one write and put back, where they came from, by a later one.

        A row that keeps the direction of its move is not back: an update moved it, and a normalisation
        followed.
        """
        if name not in self._moves:
            return 0
        move, final = self._moves[name], rows_of(self.tensors[name])
        way = (move["to"] - move["from"]).norm(dim=1)
        back = (final - move["from"]).norm(dim=1) < BACK * way
        kept = torch.cosine_similarity(final, move["to"], dim=1) > SAME_WAY
        return int((move["done"] & back & ~kept).sum())

    def _note(self, name: str, now: torch.Tensor) -> None:
        """Remember each row's first move; rows of a tensor that was exchanged meanwhile are left alone."""
        before = self._before[name]
        if torch.equal(now, before):
            return
        self._seen[name] += 1
        length = torch.maximum(now.norm(dim=1), before.norm(dim=1))
        jumped = (now - before).norm(dim=1) > MOVED * length
        move = self._moves.setdefault(
            name, {"from": before.clone(), "to": before.clone(), "done": torch.zeros_like(jumped)}
        )
        fresh = jumped & ~move["done"]
        move["from"][fresh], move["to"][fresh] = before[fresh], now[fresh]
        move["done"] |= fresh
        self._before[name] = now


def rows_of(tensor: torch.Tensor) -> torch.Tensor:
    """Return a copy of the rows [N, D] of a codebook [K, D] or [H, K, D], float32."""
    return tensor.detach().reshape(-1, tensor.shape[-1]).float().clone()


def _storage(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
