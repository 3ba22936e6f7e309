"""A VQ layer and its tensors as Python expressions of the user's model."""

from __future__ import annotations

from keyword import iskeyword

from vqdoctor.layouts.place import Place
from vqdoctor.layouts.state_dict import strip_prefixes
from vqdoctor.layouts.view import QuantizerView


def attributes(view: QuantizerView) -> dict[str, str]:
    """Return expressions of `model` for the layer ("vq") and its tensors.

    "codebook" and "sums" are [K, D] and "counts" [K], whatever the library stores; "parameter" is the tensor
    of the codebook as it is stored. Two are left out: a codebook that is computed from other tensors, and a
    name that no attribute can have.
    """
    path = view.name.partition("[")[0]
    found = {"vq": _expression(path)}
    for role in ("codebook", "counts", "sums"):
        key = view.keys.get(role)
        if key is None or (role == "codebook" and view.derived):
            continue
        _, inside, rest = f".{key}".rpartition(f".{path}.")
        if not inside:  # the layer is the whole model, and has its name from this package
            found.pop("vq", None)
        expression = _expression(f"{path}.{rest}" if inside else strip_prefixes(key))
        found[role] = expression and f"{expression}{_part(view.place, codes=role != 'counts')}"
        if role == "codebook":
            found["parameter"] = expression
    return {role: expression for role, expression in found.items() if expression}


def _expression(path: str) -> str:
    tokens = path.split(".")
    if not all((t.isascii() and t.isidentifier() and not iskeyword(t)) or t.isdecimal() for t in tokens):
        return ""
    return "model" + "".join(f"[{token}]" if token.isdecimal() else f".{token}" for token in tokens)


def _part(place: Place, *, codes: bool) -> str:
    """Return the subscripts that make [K, D] or [K] of what is stored."""
    part = "" if place.head is None else f"[:, {place.head}]" if place.head_axis else f"[{place.head}]"
    if codes and place.transposed:
        part += ".T"
    if place.rows is not None:
        part += f"[{place.first or ''}:{place.first + place.rows}]"
    return part
