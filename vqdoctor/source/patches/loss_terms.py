"""The two terms of the VQ loss: which operand is detached, and which term has the factor beta.

codebook loss |sg(z_e) - z_q|², commitment loss beta |z_e - sg(z_q)|² (van den Oord et al. 2017,
arXiv:1711.00937). One term at a time first; then all of the loss anew.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import libcst as cst

from vqdoctor.source.edit import below, code, edited, every, functional
from vqdoctor.source.patch import Patch, Proposal
from vqdoctor.source.place import Place

ADDING = ("commitment-term", "sound-ema")
"""The remedies that may need a commitment loss where the layer has none."""
BETA = "0.25"
"""The factor of the commitment loss in the paper."""
_STOPPED = re.compile(r"(\.detach\(\)|\.data)$")


@dataclass(frozen=True, kw_only=True, eq=False)
class _Term:
    """A squared error of z_e and z_q: the call of a loss, or a difference that is squared.

    Attributes:
        node: the expression.
        around: the expression with {} in the place of each operand.
        z_e: the name of z_e.
        z_q: the name of z_q.
        stopped: the name that is detached now; "" where neither is, or both are.
    """

    node: cst.CSTNode
    around: str
    z_e: str
    z_q: str
    stopped: str

    @property
    def of_codebook(self) -> str:
        return self.around.format(self.z_q, f"{self.z_e}.detach()")

    @property
    def of_commitment(self) -> str:
        return self.around.format(self.z_e, f"{self.z_q}.detach()")

    @property
    def swapped(self) -> str:
        """The other of the two terms."""
        return self.of_commitment if self.stopped == self.z_e else self.of_codebook


def _propose(place: Place, remedy: str) -> Iterator[Proposal]:
    terms, module = list(_terms(place)), place.module
    if len(terms) == 2 and remedy == "swap-loss-terms":
        swapped = edited(module, {term.node: term.swapped for term in terms})
        yield Proposal(module=swapped, what="the factor on the commitment loss")
    if remedy == "match-reductions":
        losses = [line.statement for line in place.lines if line.meaning == "loss"]
        calls = [call for statement in losses for call in every(statement, cst.Call)]
        if means := {call: mean for call in calls if (mean := _with_mean(call))}:
            yield Proposal(module=edited(module, means), what="means in place of sums")
        return
    for term in terms if remedy in ADDING or len(terms) == 1 else ():
        if term.stopped == term.z_q:
            yield from _with_codebook(place, term)
            continue
        both = f"{code(term.node)} + {_missing(term)}"
        if not any(line.value is term.node for line in place.lines):
            both = f"({both})"
        yield Proposal(module=edited(module, {term.node: both}), what=f"{_missing(term)} beside it")
    for term in terms:
        for name, right in {"commitment": term.of_commitment, "codebook": term.of_codebook}.items():
            if right != code(term.node):
                told = f"the {name} loss, in place of {code(term.node)}"
                yield Proposal(module=edited(module, {term.node: right}), what=told)
    yield from _anew(place, terms)


def _with_codebook(place: Place, term: _Term) -> Iterator[Proposal]:
    """Yield the codebook loss beside a commitment: with weight 1, outside of the product with beta."""
    losses = [
        line.value for line in place.lines if line.meaning == "loss" and line.target and not line.nested
    ]
    products = [
        node
        for node in below(place.layer)
        if isinstance(node, cst.BinaryOperation)
        and isinstance(node.operator, cst.Multiply)
        and any(part is term.node for part in below(node))
    ]
    for value in [*losses[-1:], *products[:1], term.node]:
        if value is not None:
            both = f"{code(value)} + {_missing(term)}"
            whole = any(line.value is value for line in place.lines)
            changed = edited(place.module, {value: both if whole else f"({both})"})
            yield Proposal(module=changed, what=f"{_missing(term)} beside it")


def _missing(term: _Term) -> str:
    """Return the other term of the two: the codebook's beside a commitment, else a commitment."""
    return term.of_codebook if term.stopped == term.z_q else f"{BETA} * {term.of_commitment}"


def _terms(place: Place) -> Iterator[_Term]:
    """Yield the squared errors of z_e and z_q in the layer's class."""
    inputs, codes = place.meant("z_e"), place.meant("z_q")
    for node in below(place.layer):
        operands, around = _operands(node) if isinstance(node, cst.BaseExpression) else ((), "")
        bare = [_STOPPED.sub("", operand) for operand in operands]
        z_e = next((name for name in bare if name in inputs), "")
        z_q = next((name for name in bare if name in codes and name != z_e), "")
        if z_e and z_q:
            stopped = [name for name, operand in zip(bare, operands, strict=True) if name != operand]
            yield _Term(
                node=node, around=around, z_e=z_e, z_q=z_q, stopped=stopped[0] if len(stopped) == 1 else ""
            )


def _operands(node: cst.BaseExpression) -> tuple[tuple[str, ...], str]:
    """Return the operands of a squared error, and the rest of it with {} for each; () where it is none."""
    if isinstance(node, cst.Call) and code(node.func).endswith(("mse_loss", "smooth_l1_loss")):
        if len(node.args) >= 2:
            rest = "".join(f", {code(arg).rstrip(', ')}" for arg in node.args[2:])
            first, second = (code(arg.value) for arg in node.args[:2])
            return (first, second), f"{code(node.func)}({{}}, {{}}{rest})"
        return (), ""
    power = ""
    inner: cst.BaseExpression | None = None
    if (
        isinstance(node, cst.BinaryOperation)
        and isinstance(node.operator, cst.Power)
        and code(node.right) == "2"
    ):
        inner, power = node.left, "({} - {}) ** 2"
    elif (
        isinstance(node, cst.Call) and isinstance(node.func, cst.Attribute) and node.func.attr.value == "pow"
    ):
        inner, power = node.func.value, "({} - {}).pow(2)"
    if isinstance(inner, cst.BinaryOperation) and isinstance(inner.operator, cst.Subtract):
        return (code(inner.left), code(inner.right)), power
    return (), ""


def _with_mean(call: cst.Call) -> str:
    """Return a call as a mean, where it is a sum; "" where it is none."""
    func = call.func
    if isinstance(func, cst.Attribute) and func.attr.value == "sum" and not call.args:
        return f"{code(func.value)}.mean()"
    if code(func) == "torch.sum" and len(call.args) == 1:
        return f"torch.mean({code(call.args[0].value)})"
    kept = [arg for arg in call.args if arg.keyword is None or code(arg.value) not in ("'sum'", '"sum"')]
    if len(kept) == len(call.args):
        return ""
    return f"{code(func)}({', '.join(code(arg).rstrip(', ') for arg in kept)})"


def _anew(place: Place, terms: list[_Term]) -> Iterator[Proposal]:
    """Yield the whole loss in its usual form, in the place of a statement that has a squared error."""
    inputs, codes, call = place.meant("z_e"), place.meant("z_q"), functional(place.module)
    for line in place.lines:
        if line.meaning != "loss" or line.value is None or not inputs or not codes or not call:
            continue
        found = [term for term in terms if any(node is term.node for node in below(line.value))]
        z_e, z_q = (found[0].z_e, found[0].z_q) if found else (inputs[-1], codes[0])
        commitment = f"{BETA} * {call}.mse_loss({z_e}, {z_q}.detach())"
        both = f"{call}.mse_loss({z_q}, {z_e}.detach()) + {commitment}"
        wanted = (commitment,) if place.role("sums") else (both, commitment)
        for whole in wanted:
            yield Proposal(module=edited(place.module, {line.value: whole}), what=f"{line.target} anew")


PATCH = Patch(
    remedies=(
        "detach-the-code",
        "swap-loss-terms",
        "commitment-term",
        "train-codebook",
        "match-reductions",
        "sound-ema",
    ),
    propose=_propose,
)
