"""The weight of the VQ loss in the loss that is minimised: 0.1 to lower it, 0.25 to raise it; its warm-up.

A constant with the name of a weight is changed where it is defined; else the loss gets a factor.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import libcst as cst

from vqdoctor.source.edit import below, code, edited, every, number
from vqdoctor.source.patch import Patch, Proposal
from vqdoctor.source.place import Place

WEIGHTS = {"lower-vq-weight": "0.1", "raise-vq-weight": "0.25", "warm-up": "0.1"}
RISE = "min(1.0, {epoch} / 10)"
"""The share of the weight in an epoch: a warm-up of 10 epochs."""
_WEIGHT = re.compile(
    r"(vq|commit\w*|quant\w*|codebook|latent|lambda|beta_vq).*(weight|coef\w*|scale|cost|lambda|vq)$", re.I
)
_LOSS = re.compile(
    r"(vq|commit\w*|quant\w*|codebook|latent|emb|q).*loss|loss.*(vq|commit|quant)|^commit\w*$|^vq$", re.I
)


def _propose(place: Place, remedy: str) -> Iterator[Proposal]:
    weight = WEIGHTS[remedy]
    if remedy != "warm-up":
        yield from _constants(place.module, weight)
    for term in _terms(place.module):
        factor, loss = _split(term)
        rise = _rise(place.module, term) if remedy == "warm-up" else ""
        if remedy == "warm-up" and not rise:
            continue
        told = " * ".join(
            part for part in (weight if remedy != "warm-up" or not factor else factor, rise) if part
        )
        changed = edited(place.module, {term: f"{told} * {loss}"})
        yield Proposal(module=changed, what=f"{told} before {loss}")


def _constants(module: cst.Module, weight: str) -> Iterator[Proposal]:
    for node in below(module):
        value: cst.BaseExpression | None = None
        name = ""
        if isinstance(node, cst.Assign):
            value, name = node.value, code(node.targets[0].target)
        elif isinstance(node, cst.AnnAssign):
            value, name = node.value, code(node.target)
        elif isinstance(node, cst.Param):
            value, name = node.default, node.name.value
        elif isinstance(node, cst.Arg) and node.keyword is not None:
            value, name = node.value, node.keyword.value
        if value is not None and number(value) not in (None, 0.0) and _WEIGHT.search(name.rpartition(".")[2]):
            changed = edited(module, {value: weight})
            yield Proposal(module=changed, what=f"{name} = {weight}, in place of {code(value)}")


def _terms(module: cst.Module) -> Iterator[cst.BaseExpression]:
    """Yield the summands of losses that are the VQ loss, with their factors."""
    for node in every(module, cst.BinaryOperation):
        if isinstance(node.operator, cst.Add):
            yield from (side for side in (node.left, node.right) if _is_vq_loss(side))


def _is_vq_loss(node: cst.BaseExpression) -> bool:
    _, loss = _split(node)
    plain = re.sub(r"\.(mean|sum)\(\)$|\[.*\]$", "", loss)
    return re.fullmatch(r"[\w.]+", plain) is not None and bool(_LOSS.search(plain.rpartition(".")[2]))


def _split(node: cst.BaseExpression) -> tuple[str, str]:
    """Return the factor of a product and the rest; the factor is "" where the node is not a product."""
    if isinstance(node, cst.BinaryOperation) and isinstance(node.operator, cst.Multiply):
        left, right = code(node.left), code(node.right)
        return (
            (right, left) if _LOSS.search(left.rpartition(".")[2]) and number(node.right) else (left, right)
        )
    return "", code(node)


def _rise(module: cst.Module, term: cst.CSTNode) -> str:
    """Return the share of the weight in the epoch around a term; "" where no loop counts epochs."""
    for loop in every(module, cst.For):
        if any(node is term for node in below(loop.body)) and "epoch" in code(loop.target):
            return RISE.format(epoch=code(loop.target))
    for function in every(module, cst.FunctionDef):
        names = [p.name.value for p in function.params.params]
        if "epoch" in names and any(node is term for node in below(function.body)):
            return RISE.format(epoch="epoch")
    return ""


PATCH = Patch(remedies=tuple(WEIGHTS), propose=_propose)
