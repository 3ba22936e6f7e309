"""A detach or a no_grad between encoder, VQ layer and decoder, taken away.

A detach of the estimator or of a loss belongs there and stays. Each of the others is proposed in turn.
"""

from __future__ import annotations

from collections.abc import Iterator

import libcst as cst

from vqdoctor.source.edit import below, code, edited, every
from vqdoctor.source.patch import Patch, Proposal
from vqdoctor.source.place import Place


def _propose(place: Place, remedy: str) -> Iterator[Proposal]:
    kept = {id(call) for node in _own(place.module) for call in every(node, cst.Call)}
    for call in every(place.module, cst.Call):
        func = call.func
        if isinstance(func, cst.Attribute) and func.attr.value == "detach" and id(call) not in kept:
            bare = code(func.value)
            yield Proposal(module=edited(place.module, {call: bare}), what=f"{bare} without a detach")
    for block in every(place.module, cst.With):
        if any(code(item.item).endswith("no_grad()") for item in block.items):
            yield Proposal(module=_without(place.module, block), what="no torch.no_grad() around it")


def _own(module: cst.Module) -> Iterator[cst.CSTNode]:
    """Yield the expressions in which a detach belongs: sums and differences, and losses."""
    for node in below(module):
        if isinstance(node, cst.BinaryOperation) or (
            isinstance(node, cst.Call) and "loss" in code(node.func)
        ):
            yield node


def _without(module: cst.Module, block: cst.With) -> cst.Module:
    class Unwrap(cst.CSTTransformer):
        def leave_With(self, original_node: cst.With, updated_node: cst.With) -> object:  # type: ignore[override]
            return cst.FlattenSentinel(updated_node.body.body) if original_node is block else updated_node

    changed = module.visit(Unwrap())
    assert isinstance(changed, cst.Module)
    return changed


PATCH = Patch(remedies=("reattach-encoder",), propose=_propose)
