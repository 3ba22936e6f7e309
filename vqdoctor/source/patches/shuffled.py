"""A loader that shuffles."""

from __future__ import annotations

from collections.abc import Iterator

import libcst as cst

from vqdoctor.source.edit import code, every
from vqdoctor.source.patch import Patch, Proposal
from vqdoctor.source.patches._keyword import with_keyword
from vqdoctor.source.place import Place


def _propose(place: Place, remedy: str) -> Iterator[Proposal]:
    for call in every(place.module, cst.Call):
        if code(call.func).endswith("DataLoader"):
            changed = with_keyword(place.module, call, "shuffle", "True")
            if changed is not None:
                yield Proposal(module=changed, what="shuffle=True")


PATCH = Patch(remedies=("shuffle",), propose=_propose)
