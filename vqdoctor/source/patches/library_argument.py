"""The argument that a library has for the remedy, set where its layer is built."""

from __future__ import annotations

from collections.abc import Iterator

import libcst as cst

from vqdoctor.source.edit import code, every
from vqdoctor.source.patch import Patch, Proposal
from vqdoctor.source.patches._keyword import with_keyword
from vqdoctor.source.place import Place

SETTINGS = (
    "data-init", "revive-dead-codes", "relative-threshold", "faster-ema", "smaller-steps", "lower-vq-weight",
    "raise-vq-weight", "rotation-trick", "swap-loss-terms", "linear-codebook", "cosine-codes", "entropy-term",
)  # fmt: skip
"""The advice that has a setting of `Vocabulary.arguments`, and may be an argument somewhere."""


def _propose(place: Place, remedy: str) -> Iterator[Proposal]:
    if place.constructor is None:
        return
    name, argument, value = place.constructor
    for call in every(place.module, cst.Call):
        if code(call.func).rpartition(".")[2] == name:
            changed = with_keyword(place.module, call, argument, value)
            if changed is not None:
                yield Proposal(module=changed, what=f"{name}(..., {argument}={value})")


PATCH = Patch(remedies=SETTINGS, propose=_propose, keeps_values=False)
