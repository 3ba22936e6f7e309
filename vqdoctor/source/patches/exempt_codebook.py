"""A codebook that weight decay leaves alone: a group of its own in the optimizer."""

from __future__ import annotations

from collections.abc import Iterator

import libcst as cst

from vqdoctor.source.edit import code, edited, every
from vqdoctor.source.patch import Patch, Proposal
from vqdoctor.source.place import Place


def _propose(place: Place, remedy: str) -> Iterator[Proposal]:
    codebook = place.in_model.get("parameter", "").partition(".")[2]
    if not codebook:
        return
    for call in every(place.module, cst.Call):
        decayed = any(a.keyword is not None and a.keyword.value == "weight_decay" for a in call.args)
        if not call.args or not (decayed or code(call.func).endswith("AdamW")):
            continue
        value = call.args[0].value
        text = code(value)
        if not text.endswith(".parameters()"):
            continue
        owner = text.removesuffix(".parameters()")
        parameter = f"{owner}.{codebook}"
        rest = f"[p for p in {owner}.parameters() if p is not {parameter}]"
        groups = f'[{{"params": {rest}}}, {{"params": [{parameter}], "weight_decay": 0.0}}]'
        yield Proposal(module=edited(place.module, {value: groups}), what=f"no decay on {parameter}")


PATCH = Patch(remedies=("exempt-codebook",), propose=_propose)
