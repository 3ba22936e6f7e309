"""The tensors nearest to a codebook, for a file without a recognised layer."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator

from vqdoctor.core.report import Candidate
from vqdoctor.layouts.build import is_matrix
from vqdoctor.layouts.state_dict import StateDict
from vqdoctor.layouts.words import foreign_word, is_code_word, is_projection, vq_word

LIMIT = 8


def candidates(states: Iterable[StateDict]) -> tuple[Candidate, ...]:
    """Return the float matrices that look most like a codebook, best first, at most eight.

    Each has its raw key, which the user can name as the codebook, and the reasons for and against it.
    """
    matrices = (
        (state, name) for state in states for name, tensor in state.entries.items() if is_matrix(tensor)
    )
    scored = (
        (sum(weight for weight, _ in reasons), -order, state.raw[name], state.entries[name].shape, reasons)
        for order, (state, name) in enumerate(matrices)
        if (reasons := tuple(_reasons(state, name)))
    )
    best = heapq.nlargest(LIMIT, scored, key=lambda row: row[:2])
    return tuple(
        Candidate(key=key, shape=shape, why="; ".join(why for _, why in reasons))
        for _, _, key, shape, reasons in best
    )


def _reasons(state: StateDict, name: str) -> Iterator[tuple[int, str]]:
    """Yield the reasons for (positive) and against (negative) taking that matrix for a codebook."""
    tokens = name.split(".")
    owner = ".".join(tokens[:-1])
    rows, columns = state.entries[name].shape
    if word := vq_word(tokens):
        yield 4, f'"{word}" in its path'
    if named := [t for t in tokens[-2:] if is_code_word(t)]:
        yield 2, f'"{named[-1]}" is a usual name of a table'
    if rows >= columns:
        yield 1, f"{rows} rows of {columns}"
    if state.get(owner, "bias") is not None:
        yield -3, "but it has a bias, as a linear map has"
    elif any(is_projection(t) for t in tokens[-2:]):
        yield -3, "but its name is that of a map between spaces"
    if word := foreign_word(tokens):
        yield -4, f'but "{word}" is not the name of a codebook'
    if tokens[-1] != "weight" and state.get(owner, "weight") is not None:
        yield -2, "but it is an extra of another weight"
