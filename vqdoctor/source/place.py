"""The place of the examined VQ layer in a source file, and the meaning of its names there."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import libcst as cst
from libcst.metadata import MetadataWrapper, PositionProvider

from vqdoctor.core.frozen import frozen
from vqdoctor.source.edit import code, every, one_statement_a_line

Meaning = Literal["z_e", "indices", "z_q", "loss", ""]
_CHOICE = re.compile(r"\b(argmin|argmax|topk|multinomial|gumbel_softmax|bucketize)\b|\.(min|max)\(.*(dim|1)")
_SQUARE = re.compile(r"\bmse_loss\b|\bMSELoss\b|\.pow\(2\)|\*\* ?2|\bsmooth_l1_loss\b|\bcriterion\b")


@frozen
class Written:
    """A class of a model, and where it is written.

    Attributes:
        path: the module of the model; that of the model itself is "".
        name: the class's name.
        file: the file, as a real path; "" where it is unknown.
        line: a line within the class; 0 where it is unknown.
    """

    path: str
    name: str
    file: str = ""
    line: int = 0


@dataclass(frozen=True, kw_only=True, eq=False)
class Place:
    """One VQ layer in one file.

    Attributes:
        module: the file, with one statement per line in the layer's class.
        original: the file as its author wrote it, where the layer's class was found in it.
        layer: the class that computes the layer: its own, or the nearest one around it that the file defines;
            None where the file defines none of them.
        names: "codebook", "counts" and "sums" as that class writes them ("self.embedding.weight"), as far as
            they are known.
        transposed: whether codebook and sums are stored as [D, K].
        in_model: the layer and the stored codebook as expressions of `model` ("vq", "parameter").
        constructor: the class that a library has for the layer, and the argument that does what the
            remedy says, with its value as text; None where there is none.
    """

    module: cst.Module
    original: cst.Module | None = None
    layer: cst.ClassDef | None = None
    names: Mapping[str, str] = field(default_factory=dict)
    transposed: bool = False
    in_model: Mapping[str, str] = field(default_factory=dict)
    constructor: tuple[str, str, str] | None = None

    @property
    def methods(self) -> tuple[cst.FunctionDef, ...]:
        """The functions of the layer's class."""
        body = self.layer.body.body if self.layer is not None else ()
        return tuple(item for item in body if isinstance(item, cst.FunctionDef))

    @property
    def forward(self) -> cst.FunctionDef | None:
        """The function of the class that quantizes: `forward`, or the one that chooses the codes."""
        named = {function.name.value: function for function in self.methods}
        choosing = [f for f in self.methods if _CHOICE.search(code(f.body))]
        return named.get("forward") or next(iter(choosing), None)

    @cached_property
    def lines(self) -> tuple[Line, ...]:
        """The statements of `forward` in their order, each with the meaning of what it assigns."""
        return tuple(_read(self)) if self.forward is not None else ()

    @property
    def input(self) -> str:
        """The name under which `forward` gets z_e; "" where it takes none."""
        if self.forward is None:
            return ""
        parameters = self.forward.params.params[1:]
        return parameters[0].name.value if parameters else ""

    def meant(self, meaning: Meaning) -> tuple[str, ...]:
        """Return the names in `forward` that have a meaning, each once, the last assigned first."""
        found = [line.target for line in self.lines if line.meaning == meaning]
        if meaning == "z_e":
            found = [self.input, *found]
        return tuple(dict.fromkeys(name for name in reversed(found) if name))

    def role(self, role: str) -> str:
        """Return the name of a stored tensor in the layer's class; "" where it is unknown."""
        return self.names.get(role, "")


@dataclass(frozen=True, kw_only=True, eq=False)
class Line:
    """One statement of `forward`.

    Attributes:
        statement: the statement.
        target: the name that it assigns; "" where it assigns none.
        value: the expression; None where there is none.
        meaning: what the target holds.
        nested: whether it is part of an `if` or of a loop.
    """

    statement: cst.SimpleStatementLine
    target: str
    value: cst.BaseExpression | None
    meaning: Meaning
    nested: bool


def place_in(
    module: cst.Module, classes: Sequence[Written], keys: Mapping[str, str], **known: object
) -> Place:
    """Return the place of a layer in a file.

    Args:
        module: the file.
        classes: those of the codebook's module and of the modules around it, as far as this file has them,
            the innermost first; of one module each before the classes that it inherits from.
        keys: role to the tensor's name in the model ("vq.embedding.weight").
        **known: further attributes of `Place`.
    """
    for path in dict.fromkeys(written.path for written in classes):
        found = [node for one in classes if one.path == path and (node := _defined(module, one)) is not None]
        if found:
            # A class that leaves the choice of the codes to one that it inherits from is not the place.
            layer = next((node for node in found if _CHOICE.search(code(node))), found[0])
            original = module
            module, layer = one_statement_a_line(module, layer)
            inside = {role: key.removeprefix(f"{path}.") for role, key in keys.items()}
            names = {role: f"self.{expression(key)}" for role, key in inside.items()}
            return Place(module=module, original=original, layer=layer, names=names, **known)  # type: ignore[arg-type]
    return Place(module=module, **known)  # type: ignore[arg-type]


def _defined(module: cst.Module, wanted: Written) -> cst.ClassDef | None:
    """Return the class of that name in a file: of several the one around the line, else the last."""
    named = [node for node in every(module, cst.ClassDef) if node.name.value == wanted.name]
    if len(named) > 1 and wanted.line:
        places = MetadataWrapper(cst.parse_module(module.bytes)).resolve(PositionProvider)
        spans = [
            (at.start.line, at.end.line)
            for node, at in places.items()
            if isinstance(node, cst.ClassDef) and node.name.value == wanted.name
        ]
        around = [
            node
            for node, (start, end) in zip(named, sorted(spans), strict=True)
            if start <= wanted.line <= end
        ]
        named = around or named
    return named[-1] if named else None


def expression(key: str) -> str:
    """Return a name of a state dict as Python writes it.

    >>> expression("levels.0.embed")
    'levels[0].embed'
    """
    return re.sub(r"\.(\d+)(?=\.|$)", r"[\1]", key)


def mentions(node: cst.CSTNode, name: str) -> bool:
    """Return whether an expression, such as "z" or "self.embed", occurs in a node as a whole."""
    return bool(name) and re.search(rf"(?<![\w.]){re.escape(name)}(?!\w)", code(node)) is not None


def _read(place: Place) -> Iterator[Line]:
    """Yield the statements of `forward` with their meanings, by what flows into each."""
    assert place.forward is not None
    codebook = place.role("codebook")
    tables = {codebook, codebook.removesuffix(".weight")} - {""}
    helpers = {f"self.{f.name.value}": _of_helper(f, tables) for f in place.methods if f is not place.forward}
    known: dict[str, Meaning] = {place.input: "z_e"}
    top = {id(statement) for statement in place.forward.body.body}
    for statement in every(place.forward.body, cst.SimpleStatementLine):
        target, value, meaning = "", None, ""
        first = statement.body[0]
        if isinstance(first, cst.Assign | cst.AnnAssign | cst.AugAssign) and first.value is not None:
            value = first.value
            targets = [t.target for t in first.targets] if isinstance(first, cst.Assign) else [first.target]
            target = code(targets[0]) if isinstance(targets[0], cst.Name) else ""
            meaning = _meaning(value, known, tables, helpers)
            if target and not meaning and _is_form_of(tables, value, known):
                tables = {*tables, target}
            for name in every(targets[0], cst.Name):
                known[name.value] = meaning
        yield Line(
            statement=statement,
            target=target,
            value=value,
            meaning=meaning,  # type: ignore[arg-type]
            nested=id(statement) not in top,
        )


def _is_form_of(tables: set[str], value: cst.BaseExpression, known: Mapping[str, Meaning]) -> bool:
    """Return whether a value is the codebook under another name or in another form, and no distance to it."""
    own = any(mentions(value, table) for table in tables)
    return own and not any(known.get(name.value) for name in every(value, cst.Name))


def _of_helper(function: cst.FunctionDef, tables: set[str]) -> Meaning:
    text = code(function.body)
    if _CHOICE.search(text):
        return "indices"
    return "z_q" if any(mentions(function.body, table) for table in tables) else ""


def _meaning(
    value: cst.BaseExpression, known: Mapping[str, Meaning], tables: set[str], helpers: Mapping[str, Meaning]
) -> Meaning:
    meanings = {known[name.value] for name in every(value, cst.Name) if known.get(name.value)}
    called = {helpers[text] for call in every(value, cst.Call) if helpers.get(text := code(call.func))}
    text = code(value)
    if "z_q" in meanings and (_SQUARE.search(text) or "loss" in meanings):
        return "loss"
    if meanings == {"loss"}:
        return "loss"
    if "indices" in called or _CHOICE.search(text):
        return "indices"
    of_table = any(mentions(value, table) for table in tables)
    if "z_q" in meanings or "z_q" in called or ("indices" in meanings and of_table):
        return "z_q"
    if "indices" in meanings:
        return "indices"
    return "z_e" if meanings == {"z_e"} and not of_table else ""
