"""The examined VQ layers as a patch of the source needs them: plain values, made where the model is."""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from vqdoctor.core.frozen import frozen
from vqdoctor.engine.session import Session
from vqdoctor.layouts import QuantizerView

if TYPE_CHECKING:
    import torch

    from vqdoctor.capture.step import Step
    from vqdoctor.source import Written

SMALL = 0.01
"""Share of the distance from z_e to its code under which an output is the one or the other: far above
float32's rounding, and far under what a projection changes."""


@frozen
class SourceLayer:
    """One VQ layer.

    Attributes:
        name: its name in the report.
        keys: role to the tensor's name in the model.
        transposed: whether codebook and sums are stored as [D, K].
        classes: the classes that compute it, the innermost module first, each before those it inherits from.
        output: what it hands on in train mode: its input z_e, or its codes; "" for anything else, and where
            it is unknown.
    """

    name: str
    keys: Mapping[str, str]
    transposed: bool
    classes: tuple[Written, ...]
    output: Literal["z_e", "codes", ""] = ""


def layers_of(session: Session, views: Sequence[QuantizerView]) -> tuple[SourceLayer, ...]:
    """Return the layers of an examined session, in the order of its report."""
    ours = {raw: name for name, raw in session.model.raw_keys.items()}
    outputs = _outputs(session, views)
    found = []
    for view in views:
        keys = {role: ours.get(key, key) for role, key in view.keys.items()}
        found.append(
            SourceLayer(
                name=view.name,
                keys=keys,
                transposed=view.place.transposed,
                classes=tuple(_classes(session.model.model, keys.get("codebook", f"{view.name}."))),
                output=outputs.get(view.name, ""),
            )
        )
    return tuple(found)


def _classes(model: torch.nn.Module, key: str) -> Iterator[Written]:
    """Yield the classes of the modules that a tensor lies in, the innermost first."""
    from torch import nn

    from vqdoctor.source import Written

    modules = dict(model.named_modules(remove_duplicate=False))
    path = key
    while path:
        path = path.rpartition(".")[0]
        for kind in type(modules[path]).__mro__ if path in modules else ():
            if kind is nn.Module:
                break
            yield Written(path=path, name=kind.__name__, file=_file(kind), line=_line(kind))


def _file(kind: type) -> str:
    try:
        return os.path.realpath(inspect.getsourcefile(kind) or "")
    except TypeError:  # it is built in
        return ""


def _line(kind: type) -> int:
    """Return a line within the class's own statement; 0 where it is unknown."""
    file = _file(kind)  # a decorator's function, or a generated one, is written elsewhere
    functions = (getattr(inspect.unwrap(value), "__code__", None) for value in vars(kind).values())
    inside = [
        code.co_firstlineno for code in functions if code and os.path.realpath(code.co_filename) == file
    ]
    try:
        return min(inside) if inside else inspect.getsourcelines(kind)[1]
    except (OSError, TypeError):
        return 0


def _outputs(session: Session, views: Sequence[QuantizerView]) -> dict[str, Literal["z_e", "codes", ""]]:
    """Return the kind of output of each layer on its first training batch."""
    from vqdoctor.models.untouched import untouched

    stored = tuple(view for view in views if "codebook" in view.keys)
    if not stored:
        return {}
    with untouched(session.model.model, session.settings.seed, session.device):
        context = replace(session.model_context(), views=stored)
        steps: Mapping[str, Step] = next(iter(context.steps()), {})
        return {name: _output(step) for name, step in steps.items()}


def _output(step: Step) -> Literal["z_e", "codes", ""]:
    import torch

    from vqdoctor.capture.vectors import rows

    codebook = torch.tensor(step.layer.view.codebook).float()
    z_e, z_q = (rows(t.detach().cpu(), step.axis).flatten(0, 1).float() for t in (step.z_e, step.z_q))
    if z_e.shape != z_q.shape or z_e.shape[1] != codebook.shape[1]:
        return ""

    def to_codes(vectors: torch.Tensor) -> float:
        return float(torch.cdist(vectors, codebook).min(1).values.norm())

    most = SMALL * to_codes(z_e)
    if float((z_q - z_e).norm()) < most:
        return "z_e"
    return "codes" if to_codes(z_q) < most else ""
