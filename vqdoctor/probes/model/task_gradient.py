"""The gradient of the task loss around the VQ layer: does the encoder learn the task at all?

Autograd says which parameters are before a layer, because its input depends on them, and which are behind it,
because the task loss depends on them. The order in which a model registers its modules may be another.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

from vqdoctor.capture.pulls import leading_to
from vqdoctor.capture.step import Step
from vqdoctor.core.evidence import TaskGradient
from vqdoctor.core.frozen import frozen
from vqdoctor.probes.model._context import ModelContext, outside, square_sum
from vqdoctor.probes.model._gaps import each_layer
from vqdoctor.probes.model._looks import each_step
from vqdoctor.probes.probe import Missing

DETACHED = (
    "the layer looks up a detached z_e, and the task's gradient reaches the encoder around it: the estimator "
    "is outside the layer"
)
UNTRAINED = "no parameter that is trained moves z_e: nothing before the layer waits for a gradient"
Squares = tuple[float | None, ...]
"""Square gradients at z_q and at z_e, and mean square ones before and after the layer."""


@frozen
class _Look:
    """One layer on one batch.

    Attributes:
        vectors: vectors that were quantized.
        squares: the square gradients.
        joined: see `_around`.
        apart: see `_around`.
        beside: names of all parameters that the task trains, those in VQ layers left out, where z_e has no
            graph and no path leads to z_q; else none.
        alone: whether z_e has no graph.
    """

    vectors: int
    squares: Squares
    joined: bool | None
    apart: tuple[str, ...]
    beside: frozenset[str]
    alone: bool


def _look(context: ModelContext, step: Step) -> _Look:
    paths = tuple(layer.path for layer in context.layers.values() if layer.path)
    grads = (step.pulls.of(step.losses.task, t) for t in (step.entered, step.z_e))
    squares = (None if grad is None else square_sum(grad) for grad in grads)
    around, joined, apart = _around(step, paths)
    unseen = step.z_e.is_leaf and step.pulls.of(step.losses.task, step.entered) is None
    beside = step.pulls.of_task.keys() & outside(step.model, paths).keys() if unseen else ()
    return _Look(
        vectors=step.vectors,
        squares=(*squares, *around),
        joined=joined,
        apart=apart,
        beside=frozenset(beside),
        alone=step.z_e.is_leaf,
    )


LOOK = each_step(_look)


def measure(context: ModelContext) -> dict[str, TaskGradient | Missing]:
    """Return the task's gradient at z_q, at z_e, and before and after every layer."""
    none = dict.fromkeys(passed_by(context), DETACHED) | dict.fromkeys(untrained(context), UNTRAINED)
    return {
        name: Missing(none[name]) if name in none else _evidence(looks, _cut(context, name, looks))
        for name, looks in LOOK.at(context).items()
    }


def untrained(context: ModelContext) -> set[str]:
    """Return the layers that no trained parameter comes before: they quantize the data, or a frozen z_e.

    Autograd shows no graph there, as behind a `no_grad` by mistake; changed parameters move that z_e.
    """
    alone = {name for name, looks in LOOK.at(context).items() if all(look.alone for look in looks)}
    if not alone:
        return set()
    codebooks = {layer.tensors.get("codebook") for layer in context.mapped.values()}
    parameters = context.model.named_parameters()
    moved, _ = context.moved_by({n for n, p in parameters if p.requires_grad and n not in codebooks})
    return alone - moved


def passed_by(context: ModelContext) -> set[str]:
    """Return the layers that look up a detached z_e, and that the task's gradient passes by.

    Autograd shows neither: z_e depends by value on parameters that the task trains, and no path leads from
    the task loss to z_q.
    """
    beside = {
        name: frozenset.intersection(*(look.beside for look in looks))
        for name, looks in LOOK.at(context).items()
    }
    names = frozenset[str]().union(*beside.values())
    moved = context.moved_by(names)[0] if names else set()
    return {name for name in moved if beside.get(name)}


def _cut(context: ModelContext, name: str, looks: list[_Look]) -> bool:
    """Whether parameters that z_e depends on by value have no graph to it: they run under no_grad, say."""
    apart = set.intersection(*(set(look.apart) for look in looks))
    return bool(apart) and looks[0].joined is None and name in context.moved_by(apart)[0]


def _evidence(looks: list[_Look], cut: bool) -> TaskGradient:
    roots = []
    columns: Iterator[Squares] = zip(*(look.squares for look in looks), strict=True)
    for squares in columns:
        known = [square for square in squares if square is not None]
        roots.append((sum(known) / len(known)) ** 0.5 if known else None)
    output, input_, before, after = roots
    around = not output and input_ is not None  # the estimator is outside, or nothing reads z_q
    if around:
        output = input_
    joined = {look.joined for look in looks} - {None}
    return TaskGradient(
        source="batch",
        sample_size=sum(look.vectors for look in looks),
        at_output=output,
        at_input=input_ or 0.0,
        ratio=(input_ or 0.0) / output if output else None,
        before=0.0 if cut else before,
        after=after,
        joined=False if cut else any(joined) if joined else None,
        around=around,
    )


def _around(step: Step, paths: tuple[str, ...]) -> tuple[Squares, bool | None, tuple[str, ...]]:
    """Return the mean square gradients before and after the layer, and how the task loss is joined to them.

    Parameters inside of VQ layers belong to neither.

    Returns:
        the two gradients; whether a path leads from the task loss to parameters before the layer, None where
        autograd has none there; and the names of the parameters that no path joins to z_e or to the loss.
    """
    parameters = {name: p for name, p in outside(step.model, paths).items() if p.requires_grad}
    task, z_e = step.losses.task, step.z_e
    if not step.layer.path or not parameters or not task.requires_grad:
        return (None, None), None, ()
    reaching = leading_to(z_e, parameters)
    learning = {name: grad for name, grad in step.pulls.of_task.items() if name in parameters}
    before = [learning.get(name, torch.zeros_like(p)) for name, p in parameters.items() if name in reaching]
    after = [grad for name, grad in learning.items() if name not in reaching]
    apart = tuple(name for name in parameters if name not in learning and name not in reaching)
    joined = any(name in learning for name in reaching) if reaching else None
    return (_mean_square(before), _mean_square(after)), joined, apart


def _mean_square(found: list[torch.Tensor]) -> float | None:
    if not found:
        return None
    return sum(map(square_sum, found)) / sum(g.numel() for g in found)


PROBE = each_layer(TaskGradient, measure, mode="train", needs_codebook=False)
