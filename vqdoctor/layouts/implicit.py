"""Quantizers whose codes no file shows: they leave a trace, and a note says what they are.

LFQ and BSQ have no codebook at all: a code is the signs of its bits, and they store the bits' values, a
`mask` or `basis` of powers of two. MaskBit stores these as `bits_to_indices`, beside a table of all signs.
FSQ leaves nothing, or only projections: a file cannot show it. SimVQ with a transform of several layers has a
codebook, but the file does not record how to compute it.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from vqdoctor.layouts.build import is_matrix
from vqdoctor.layouts.state_dict import StateDict
from vqdoctor.layouts.view import Tensor

_MOST_BITS = 62
SIGNS = "bits_to_indices"
"""MaskBit's values of bits; the table beside them holds every sign once, and is never trained."""


def implicit_notes(state: StateDict) -> Iterator[str]:
    """Yield one line for each quantizer without a codebook, or with one that only a model can compute."""
    for path, bits in lookup_free(state):
        yield (
            f"{_shown(path)} is a lookup-free quantizer of {bits} bits: it has no codebook to "
            f"collapse; how many of its {2**bits} codes are used needs data"
        )
    for path in state.owners("frozen_codebook"):
        table, first = state.get(path, "frozen_codebook"), state.get(path, "code_transform.0.weight")
        if is_matrix(table) and is_matrix(first):
            yield (
                f"{_shown(path)} is a SimVQ whose transform has several layers: its codes need the model, "
                "its frozen table is not the codebook"
            )


def lookup_free(state: StateDict) -> Iterator[tuple[str, int]]:
    """Yield the path of each lookup-free quantizer and how many bits it has."""
    for suffix in ("mask", "basis", SIGNS):
        for path in state.owners(suffix):
            if bits := _bits(state.get(path, suffix), rising=suffix == SIGNS):
                yield path, bits


def _bits(tensor: Tensor | None, *, rising: bool) -> int:
    """Return how many bits these values stand for: 2ⁿ⁻¹ to 1, or rising; 0 if they are something else."""
    if tensor is None or tensor.dtype != "int64" or len(tensor.shape) != 1:
        return 0
    bits = tensor.shape[0]
    if not 1 <= bits <= _MOST_BITS:
        return 0
    values = tensor.read()  # as small as a flag
    powers = 2 ** np.arange(bits)
    return bits if np.array_equal(values, powers if rising else powers[::-1]) else 0


def _shown(path: str) -> str:
    return f'"{path}"' if path else "the model"
