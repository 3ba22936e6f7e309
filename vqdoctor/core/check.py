"""A check: limits, one function from evidence to problems, docs and examples.

A check asks for its evidence by the types of its parameters:

    def evaluate(usage: Usage, ema: EmaState | None, limits: Limits) -> Iterator[Problem]: ...

`usage` is required: where there is none the check is skipped with the probe's reason, never passed.
`ema | None` is optional; but where every piece of evidence is optional and all are missing, the
check is skipped too. A check that cannot judge what it was given raises `CannotJudge`.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import field
from functools import cached_property
from types import NoneType, UnionType
from typing import Literal, dataclass_transform

from vqdoctor.core.errors import UserError, suggestion
from vqdoctor.core.evidence import Evidence
from vqdoctor.core.finding import Problem
from vqdoctor.core.frozen import frozen
from vqdoctor.core.levels import Stage


class CannotJudge(Exception):
    """The evidence is there, but it does not allow a judgement; the reason becomes the outcome's."""


class NoEvidence(CannotJudge):
    """Evidence of the check is missing; a probe's own reason, if there is one, is the better one."""


def limit(default: float, doc: str) -> float:
    """Declare a limit: its default and, in one or two sentences, its meaning and its reason."""
    return field(default=default, metadata={"doc": doc})


@dataclass_transform(frozen_default=True, kw_only_default=True)
@frozen
class CheckLimits:
    """The limits of one check: a subclass is a frozen dataclass of floats that are made with `limit`."""

    def __init_subclass__(cls) -> None:
        """Make the subclass a dataclass."""
        super().__init_subclass__()
        frozen(cls)


@frozen
class Advice:
    """A way for the user to remove a cause, in words and in lines of code.

    Attributes:
        name: its effect, in a few words with dashes.
        how: the instruction, as one sentence.
        code: the few lines that do it, in the field's names, or the command; "" where words are enough.
        names: the names in `code` that stand for something of the examined layer: "vq", "codebook" [K, D],
            "counts" [K], "sums" [K, D], "parameter" (the codebook as it is stored), or the results of a call,
            "z_q, indices, vq_loss". A report writes the user's own in their place, as far as the layer's
            layout tells them, and leaves lines out that begin with counts or sums which the layer lacks.
        setting: an argument that does the same in a library that has one: a name of `Vocabulary.arguments`
            and its value; a report then writes that argument in place of `code`.
        in_source: whether the cause is in the source, where no training reaches it: until it is gone,
            training on is a waste.
    """

    name: str
    how: str
    code: str = ""
    names: tuple[str, ...] = ()
    setting: tuple[str, str] | None = None
    in_source: bool = False


@frozen
class Example:
    """Evidence on which the check must fire, or must not.

    Attributes:
        title: what the case is, in a few words.
        evidence: hand-made evidence, all on one layer (or on the model).
        fires: whether a problem must come out.
    """

    title: str
    evidence: tuple[Evidence, ...]
    fires: bool


def fires(title: str, *evidence: Evidence) -> Example:
    """Return an example on which the check must fire."""
    return Example(title=title, evidence=evidence, fires=True)


def passes(title: str, *evidence: Evidence) -> Example:
    """Return an example on which the check must not fire."""
    return Example(title=title, evidence=evidence, fires=False)


@frozen
class Wanted:
    """A parameter of `evaluate`: which evidence, and whether it can do without."""

    parameter: str
    evidence: type[Evidence]
    required: bool


@frozen
class Check:
    """One check. One file in `checks/` defines one, as `CHECK`.

    Attributes:
        code: "VQ" and three digits; the first is the stage.
        name: the problem in a few words with dashes; not the remedy.
        evaluate: evidence and limits in, problems out. Pure.
        limits: default limits.
        scope: "layer" is evaluated for each layer, on its evidence or else on the model's; "model"
            once, on the model's; "both" on each layer and on the model, each on its own evidence.
        remedies: names of the remedies that address it, the best first.
        advice: what to do where no remedy of the package acts, but the user can.
        other_advice: the same for problems of another cause, which name it among their remedies.
        explained_by: codes of the causes of which this can be a symptom, the likeliest first.
        meaningless_after: codes of causes that make this check meaningless; it is then skipped.
        examples: at least one that fires and one that does not.
        doc: the module's docstring: the problem as one sentence, Why it matters, How to read it, Remedy,
            References.
    """

    code: str
    name: str
    evaluate: Callable[..., Iterable[Problem]]
    limits: CheckLimits = CheckLimits()
    scope: Literal["layer", "model", "both"] = "layer"
    remedies: tuple[str, ...] = ()
    advice: Advice | None = None
    other_advice: tuple[Advice, ...] = ()
    explained_by: tuple[str, ...] = ()
    meaningless_after: tuple[str, ...] = ()
    examples: tuple[Example, ...]
    doc: str

    @property
    def stage(self) -> Stage:
        """The stage, which is the first digit of the code."""
        return Stage(int(self.code[2]))

    @property
    def title(self) -> str:
        """The problem as one sentence: the first line of the doc."""
        return self.doc.partition("\n")[0]

    @property
    def remedy_names(self) -> tuple[str, ...]:
        """The names of its remedies and of its own advice, the best first."""
        return (*self.remedies, *(advice.name for advice in self.own_advice))

    @property
    def own_advice(self) -> tuple[Advice, ...]:
        """All that it advises itself."""
        return self.other_advice if self.advice is None else (self.advice, *self.other_advice)

    @cached_property
    def wants(self) -> tuple[Wanted, ...]:
        """The evidence that `evaluate` asks for, read from the types of its parameters."""
        hints = typing.get_type_hints(self.evaluate)
        wanted = []
        for name, hint in hints.items():
            if name in ("limits", "return"):
                continue
            kinds = set(typing.get_args(hint)) if isinstance(hint, UnionType) else {hint}
            (kind,) = kinds - {NoneType}
            if not (isinstance(kind, type) and issubclass(kind, Evidence)):
                raise TypeError(f"{self.code}: {name} asks for {kind}, which is no evidence")
            wanted.append(Wanted(parameter=name, evidence=kind, required=NoneType not in kinds))
        return tuple(wanted)

    def judge(self, evidence: Mapping[type[Evidence], Evidence]) -> list[Problem]:
        """Return the problems that the evidence shows: it holds one item of each kind at most.

        Raises:
            NoEvidence: if a required kind is missing, or all kinds where all are optional.
            CannotJudge: if the evidence does not allow a judgement.
        """
        missing = [w.evidence.kind for w in self.wants if w.evidence not in evidence]
        required = [w.evidence.kind for w in self.wants if w.required]
        if len(missing) == len(self.wants) or set(missing) & set(required):
            kinds = [kind for kind in missing if kind in required] or missing
            raise NoEvidence(f"no evidence of kind {' or '.join(kinds)}")
        given = {w.parameter: evidence.get(w.evidence) for w in self.wants}
        return list(self.evaluate(**given, limits=self.limits))

    def limit_docs(self) -> Iterable[tuple[str, float, str]]:
        """Yield (name, default, doc) of each limit."""
        for f in dataclasses.fields(self.limits):
            yield f.name, getattr(self.limits, f.name), f.metadata["doc"]

    def with_limits(self, changes: Mapping[str, float]) -> Check:
        """Return this check with some limits changed.

        Raises:
            UserError: if this check has no limit of that name; the message lists its limits.
        """
        known = [f.name for f in dataclasses.fields(self.limits)]
        for name in changes:
            if name not in known:
                raise UserError(f"{self.code} has no limit {name!r}", suggestion(name, known))
        return dataclasses.replace(self, limits=dataclasses.replace(self.limits, **changes))
