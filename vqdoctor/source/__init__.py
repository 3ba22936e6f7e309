"""Patches of the user's source: one file each in `patches`, found by scanning it. Source is text here.

A patch proposes; whether a proposal is right, the engine proves by examining the patched source.
"""

from collections.abc import Iterator
from dataclasses import replace
from functools import cache

from vqdoctor.core.discovery import pieces
from vqdoctor.source import patches
from vqdoctor.source.edit import diff, joined_again, parse
from vqdoctor.source.patch import Patch, Proposal
from vqdoctor.source.place import Place, Written, place_in

__all__ = ["Patch", "Place", "Proposal", "Written", "diff", "has_patch", "parse", "place_in", "proposals"]


@cache
def _all_patches() -> tuple[Patch, ...]:
    return pieces(patches, "PATCH", Patch)


def has_patch(remedy: str) -> bool:
    """Return whether there is a patch for a remedy, or an advice, of that name."""
    return any(remedy in patch.remedies for patch in _all_patches())


def proposals(place: Place, remedy: str) -> Iterator[tuple[Patch, Proposal]]:
    """Yield the ways to carry out a remedy at a place, the likeliest first, each file once."""
    original = place.original or place.module
    seen = {original.code}
    for patch in _all_patches():
        for proposal in patch.propose(place, remedy) if remedy in patch.remedies else ():
            module = joined_again(original, proposal.module)
            if module.code not in seen:
                seen.add(module.code)
                yield patch, replace(proposal, module=module)
