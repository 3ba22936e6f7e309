"""The EMA's division, and the EMA of counts and sums, as van den Oord et al. 2017, appendix A.1, have them.

counts <- decay counts + (1 - decay) n;  sums <- decay sums + (1 - decay) sum z_e
codebook = sums / smoothed counts, with Laplace's smoothing: (counts + eps) n / (n + K eps)
"""

from __future__ import annotations

from collections.abc import Iterator

import libcst as cst

from vqdoctor.source.edit import code, edited, every
from vqdoctor.source.patch import Patch, Proposal
from vqdoctor.source.place import Place, mentions

EPSILON = "1e-5"
"""The smoothing of most libraries."""


def _propose(place: Place, remedy: str) -> Iterator[Proposal]:
    counts, sums = place.role("counts"), place.role("sums")
    if not (counts and sums and place.layer is not None):
        return
    for statement, value in _written(place, "codebook"):
        if not mentions(value, sums) and not _through(place, value, sums):
            continue
        rows = "[None, :]" if place.transposed else "[:, None]"
        whole = [
            f"total = {counts}.sum()",
            f"smoothed = ({counts} + {EPSILON}) * total / (total + {counts}.numel() * {EPSILON})",
        ]
        divided = {value: _as(value, f"{sums} / smoothed{rows}")}
        changed = edited(place.module, divided, before={statement: whole})
        yield Proposal(module=changed, what="the EMA's division")


def _written(place: Place, role: str) -> Iterator[tuple[cst.SimpleStatementLine, cst.BaseExpression]]:
    """Yield the statements of the class that write a stored tensor, and the values that they write."""
    name = place.role(role)
    for function in place.methods:
        if function.name.value == "__init__":
            continue
        for statement in every(function.body, cst.SimpleStatementLine):
            first = statement.body[0]
            if isinstance(first, cst.Assign) and _bare(first.targets[0].target) == name:
                yield statement, first.value
            elif isinstance(first, cst.Expr) and isinstance(first.value, cst.Call):
                func = first.value.func
                if (
                    isinstance(func, cst.Attribute)
                    and func.attr.value == "copy_"
                    and _bare(func.value) == name
                ):
                    yield statement, first.value.args[0].value


def _bare(node: cst.CSTNode) -> str:
    return code(node).removesuffix("[:]").removesuffix("[...]").removesuffix(".data").removesuffix("[:]")


def _through(place: Place, value: cst.BaseExpression, sums: str) -> bool:
    """Return whether a local name of a value was assigned from the sums."""
    names = {name.value for name in every(value, cst.Name)}
    return any(
        mentions(node.value, sums) and names & {code(target.target) for target in node.targets}
        for node in every(place.layer, cst.Assign)
    )


def _as(value: cst.BaseExpression, new: str) -> str:
    """Return the new value with the constructor that is around the old: a parameter stays one."""
    if isinstance(value, cst.Call) and code(value.func).endswith("Parameter"):
        rest = "".join(f", {code(arg)}" for arg in value.args[1:])
        return f"{code(value.func)}({new}{rest})"
    return new


PATCH = Patch(remedies=("sound-ema-rule", "sound-ema"), propose=_propose, keeps_values=False)
