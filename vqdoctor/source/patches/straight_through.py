"""The straight-through estimator, where the layer lacks it or has it the wrong way round.

z_q = z_e + (z_q - z_e).detach(): forward the code, backward the identity (van den Oord et al. 2017,
arXiv:1711.00937). Losses need the z_q before it, so it is proposed behind the last loss first.
"""

from __future__ import annotations

from collections.abc import Iterator

import libcst as cst

from vqdoctor.source.edit import code, edited, every
from vqdoctor.source.patch import Patch, Proposal
from vqdoctor.source.place import Line, Place, mentions

HOW = "the straight-through estimator"


def _propose(place: Place, remedy: str) -> Iterator[Proposal]:
    inputs, codes = place.meant("z_e"), place.meant("z_q")
    for line in place.lines:
        if line.value is not None and line.meaning == "z_q" and _is_attempt(line.value):
            for z_q in codes:
                for z_e in reversed(inputs):
                    changed = edited(place.module, {line.value: _estimator(z_e, z_q)})
                    yield Proposal(module=changed, what=f"{HOW}, in place of {code(line.value)}")
    for z_e in reversed(inputs):
        for line in _ends(place.lines):
            z_q = line.target if line.meaning == "z_q" else next(iter(codes), "")
            if z_q:
                added = f"{z_q} = {_estimator(z_e, z_q)}"
                yield Proposal(module=edited(place.module, after={line.statement: [added]}), what=HOW)
        yield from _in_return(place, z_e)
        yield from _before_returns(place, z_e)


def _estimator(z_e: str, z_q: str) -> str:
    return f"{z_e} + ({z_q} - {z_e}).detach()"


def _is_attempt(value: cst.BaseExpression) -> bool:
    """Return whether an expression is a sum of which a part is detached."""
    detached = any(code(call.func).endswith("detach") for call in every(value, cst.Call))
    return detached and isinstance(value, cst.BinaryOperation)


def _ends(lines: tuple[Line, ...]) -> list[Line]:
    """Return the statements that the estimator may follow: the last loss, then each z_q, last first."""
    losses = [line for line in lines if line.meaning == "loss" and not line.nested]
    codes = [line for line in lines if line.meaning == "z_q" and line.target and not line.nested]
    return [*losses[-1:], *reversed(codes)]


def _before_returns(place: Place, z_e: str) -> Iterator[Proposal]:
    """Yield the estimator before each `return` of a z_q, as where branches of an `if` choose the codes."""
    for z_q in place.meant("z_q"):
        returns = [
            line.statement
            for line in place.lines
            if isinstance(line.statement.body[0], cst.Return) and mentions(line.statement, z_q)
        ]
        added = [f"{z_q} = {_estimator(z_e, z_q)}"]
        if returns:
            yield Proposal(module=edited(place.module, before=dict.fromkeys(returns, added)), what=HOW)


def _in_return(place: Place, z_e: str) -> Iterator[Proposal]:
    """Yield the estimator around an expression that `forward` returns without giving it a name."""
    codebook = place.role("codebook").removesuffix(".weight")
    for line in place.lines:
        first = line.statement.body[0]
        if codebook and isinstance(first, cst.Return) and first.value is not None:
            parts = first.value.elements if isinstance(first.value, cst.Tuple) else [first]
            for part in parts:
                value = part.value
                if value is not None and codebook in code(value):
                    around = f"{z_e} + ({code(value)} - {z_e}).detach()"
                    yield Proposal(module=edited(place.module, {value: around}), what=HOW)


PATCH = Patch(remedies=("straight-through",), propose=_propose, gives_codes=True)
