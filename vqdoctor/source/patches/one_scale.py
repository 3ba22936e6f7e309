"""One scale for codes and z_e: both of unit length, or z_e normalised before the layer.

The normalisation of one side is done to the other: at the beginning of `forward`, so that lookup, losses and
sums all see it. The code dimension may be the last or the second: both are proposed.
"""

from __future__ import annotations

from collections.abc import Iterator

import libcst as cst

from vqdoctor.source.edit import code, edited, every, functional
from vqdoctor.source.patch import Patch, Proposal
from vqdoctor.source.place import Place


def _propose(place: Place, remedy: str) -> Iterator[Proposal]:
    call, forward, z_e = functional(place.module), place.forward, place.input
    if not (call and z_e and forward is not None):
        return
    codes_normalised = any(
        line.meaning != "z_e" and line.value is not None and "normalize(" in code(line.value)
        for line in place.lines
    )
    if remedy == "one-scale" and not codes_normalised:
        yield from _bare_vectors(place)
    unit = [f"{z_e} = {call}.normalize({z_e}, dim={dim})" for dim in ("-1", "1")]
    layer_norm = [
        f"{z_e} = {call}.layer_norm({z_e}, {z_e}.shape[-1:])",
        f"{z_e} = {call}.layer_norm({z_e}.movedim(1, -1), {z_e}.shape[1:2]).movedim(-1, 1)",
    ]
    first = next((line.statement for line in place.lines), None)
    for added in unit if remedy == "one-scale" else layer_norm:
        if first is not None:
            yield Proposal(module=edited(place.module, before={first: [added]}), what=f"{z_e} normalised")
    if remedy == "one-scale" and codes_normalised:
        yield from _bare_vectors(place)


def _bare_vectors(place: Place) -> Iterator[Proposal]:
    """Yield the file without the normalisation of one side."""
    for call in every(place.layer, cst.Call):
        if code(call.func).endswith("normalize") and call.args:
            bare = code(call.args[0].value)
            yield Proposal(module=edited(place.module, {call: bare}), what=f"{bare} as it is")


PATCH = Patch(remedies=("one-scale", "normalise-before-vq"), propose=_propose, keeps_values=False)
