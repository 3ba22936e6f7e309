"""The search that the libraries' EMA layouts share: a codebook, its counts and sums, under fixed names."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from vqdoctor.core.levels import Confidence
from vqdoctor.layouts.build import Ema, Fit, build, fit, holds, is_float
from vqdoctor.layouts.layout import Orientation
from vqdoctor.layouts.state_dict import StateDict, join
from vqdoctor.layouts.view import QuantizerView


@dataclass(frozen=True, kw_only=True)
class EmaNames:
    """Where, under the VQ layer's path, a library keeps its tensors.

    Attributes:
        codebook: suffix of the codebook.
        counts: suffix of the counts.
        sums: suffix of the sums, of the codebook's shape.
        initted: suffix of the flag of data-driven initialisation; "" where the library has none.
    """

    codebook: str
    counts: str
    sums: str
    initted: str = ""

    def roles(self, path: str) -> dict[str, str]:
        """Return role to clean name for the layer at that path."""
        suffixes = {
            "codebook": self.codebook,
            "counts": self.counts,
            "sums": self.sums,
            "initted": self.initted,
        }
        return {role: join(path, suffix) for role, suffix in suffixes.items() if suffix}


def layers(
    state: StateDict, names: EmaNames, wish: Orientation | None = None
) -> Iterator[tuple[str, dict[str, str], Fit]]:
    """Yield (path, roles, fit) of each layer that holds all of these names with shapes that fit."""
    for path in state.owners(names.codebook):
        roles = names.roles(path)
        tensors = [state.entries.get(key) for key in roles.values()]
        codebook, counts = tensors[:2]
        if codebook is None or counts is None or None in tensors or not is_float(codebook):
            continue
        how = fit(codebook.shape, counts.shape, wish)
        if how is not None and how.num_codes in codebook.shape and holds(tensors[2], codebook.shape):
            yield path, roles, how


def rows_first(state: StateDict, names: EmaNames, *, layout: str, ema: Ema) -> Iterator[QuantizerView]:
    """Yield a sure view of each layer of a library that always stores codes as rows."""
    for path, roles, how in layers(state, names):
        if not how.transposed:
            yield from build(
                state, layout=layout, name=path, roles=roles, confidence=Confidence.HIGH, ema=ema
            )
