"""Running the checks on the evidence: an outcome for every check and layer, so that nothing vanishes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from heapq import merge
from operator import itemgetter
from typing import Generic, TypeVar

from vqdoctor.core.check import CannotJudge, Check, NoEvidence
from vqdoctor.core.errors import UserError, near
from vqdoctor.core.evidence import SOURCES, Evidence, Unavailable, Usage
from vqdoctor.core.finding import Finding, Outcome, Status
from vqdoctor.core.frozen import frozen
from vqdoctor.core.levels import Severity
from vqdoctor.core.model_run import RUN
from vqdoctor.core.settings import Settings

T = TypeVar("T", Evidence, Unavailable, Finding)


@frozen
class Evaluated:
    """The findings of all checks, not ranked yet, and an outcome for every check and layer."""

    findings: tuple[Finding, ...]
    outcomes: tuple[Outcome, ...]


def choose(checks: Sequence[Check], settings: Settings) -> tuple[Check, ...]:
    """Return the checks that the settings select, with the settings' limits.

    Raises:
        UserError: if a code, or the beginning of one, is unknown, or a limit does not exist.
    """
    codes = [check.code for check in checks]
    named = [c for c in (*settings.select, *settings.ignore) if not any(k.startswith(c) for k in codes)]
    for text in (*named, *(code for code in settings.limits if code not in codes)):
        raise unknown_check(text, checks)
    return tuple(
        check.with_limits(settings.limits.get(check.code, {}))
        for check in checks
        if check.code.startswith(settings.select or "VQ")
        and not (settings.ignore and check.code.startswith(settings.ignore))
    )


_DIGITS = str.maketrans("oil", "011")
"""Letters that are taken for digits."""


def unknown_check(text: str, checks: Sequence[Check]) -> UserError:
    """Return the error of a code or name that no check has; its hint names similar ones."""
    words = [word for check in checks for word in (check.code, check.name)]
    typed = text.lower()
    if typed.startswith("vq"):
        typed = "VQ" + typed[2:].translate(_DIGITS)
    # A code with a digit too many is that code, whatever others look like it.
    words = [check.code for check in checks if typed.startswith(check.code)] or words
    return UserError(f"there is no check {text}", near(typed, words, most=4) or "`vqdoctor checks` lists all")


def evaluate(
    checks: Sequence[Check],
    layers: Sequence[str],
    evidence: Sequence[Evidence],
    unavailable: Sequence[Unavailable],
) -> Evaluated:
    """Evaluate every check where it applies; `checks` must be in the order of their codes."""
    findings: list[Finding] = []
    outcomes: list[Outcome] = []
    measured, gaps, before = _ByLayer(evidence), _ByLayer(unavailable), _ByLayer(findings)
    given = _Given(evidence)
    for check in checks:
        for layer in {"layer": (*layers,), "model": (None,), "both": (*layers, None)}[check.scope]:
            outcome, found = _evaluate_on(check, layer, measured.on(layer), gaps.on(layer), before.on(layer))
            outcomes.append(outcome)
            found = [given.still_asked(finding) for finding in found]
            findings.extend(found)
            before.add(found)
        if check.scope == "layer" and not layers:
            none = "no VQ layer was found"
            outcomes.append(Outcome(code=check.code, layer=None, status="skipped", reason=none))
    return Evaluated(findings=tuple(findings), outcomes=tuple(outcomes))


class _ByLayer(Generic[T]):
    """Items by their layer: to look through all of them for each layer would take its square."""

    def __init__(self, items: Sequence[T]) -> None:
        self._count = 0
        self._of: defaultdict[str | None, list[tuple[int, T]]] = defaultdict(list)
        self._joined: dict[str | None, list[T]] = {}
        self.add(items)

    def add(self, items: Sequence[T]) -> None:
        for item in items:
            self._joined.clear() if item.layer is None else self._joined.pop(item.layer, None)
            self._of[item.layer].append((self._count, item))
            self._count += 1

    def on(self, layer: str | None) -> list[T]:
        """Return the items on that layer and on the whole model, in the order in which they came."""
        if layer not in self._joined:
            both = (self._of[place] for place in {layer, None})
            self._joined[layer] = [item for _, item in merge(*both, key=itemgetter(0))]
        return self._joined[layer]


def _evaluate_on(
    check: Check,
    layer: str | None,
    evidence: Sequence[Evidence],
    unavailable: Sequence[Unavailable],
    findings: Sequence[Finding],
) -> tuple[Outcome, list[Finding]]:
    def outcome(status: Status, reason: str | None = None) -> Outcome:
        return Outcome(code=check.code, layer=layer, status=status, reason=reason)

    for f in findings:
        if f.code in check.meaningless_after and f.layer in (layer, None) and f.severity > Severity.NOTE:
            return outcome("skipped", f"meaningless after {f.code} ({f.name})"), []
    try:
        problems = check.judge(_best(check, layer, evidence))
    except NoEvidence as gap:
        kinds = [wanted.evidence.kind for wanted in check.wants]
        gaps = [u for u in unavailable if u.kind in kinds and u.layer in (layer, None)]
        first = min(gaps, key=lambda u: kinds.index(u.kind), default=None)
        return outcome("skipped", first.reason if first else str(gap)), []
    except CannotJudge as reason:
        return outcome("skipped", str(reason)), []
    except Exception as error:  # a check's bug must not look like a pass, nor stop the others
        return outcome("crashed", f"{type(error).__name__}: {error}"), []
    found = [
        Finding(
            code=check.code,
            name=check.name,
            stage=check.stage,
            severity=problem.severity,
            confidence=problem.confidence,
            layer=layer,
            message=problem.message,
            measurements=problem.measurements,
            remedies=problem.remedies or check.remedy_names,
            decide_with=problem.decide_with,
            explains=problem.explains,
        )
        for problem in problems
    ]
    return outcome("found" if found else "passed"), found


class _Given:
    """The layers for which a model was run, and for which data was given; None is the whole model."""

    def __init__(self, evidence: Sequence[Evidence]) -> None:
        self._ran = {item.layer for item in evidence if isinstance(item, RUN)}
        self._data = {item.layer for item in evidence if isinstance(item, Usage) and item.source == "batch"}

    def still_asked(self, finding: Finding) -> Finding:
        """Return a finding that, where it asks for data that was given, asks for the model, or no more."""
        if not finding.decide_with.startswith("--data"):
            return finding
        places = {finding.layer, None} if finding.layer else self._ran | self._data
        if places & self._ran:
            return finding.replace(decide_with="")
        return finding.replace(decide_with="--task FILE.py:NAME") if places & self._data else finding


def _best(check: Check, layer: str | None, evidence: Sequence[Evidence]) -> dict[type[Evidence], Evidence]:
    """Return, of each kind that the check wants, the evidence nearest to the layer and its best source.

    A check of a single layer falls back to evidence about the whole model.
    """
    best: dict[type[Evidence], Evidence] = {}
    nearest = (layer, None) if check.scope == "layer" else (layer,)
    for wanted in check.wants:
        matching = [e for e in evidence if isinstance(e, wanted.evidence) and e.layer in nearest]
        if matching:
            best[wanted.evidence] = min(
                matching, key=lambda e: (nearest.index(e.layer), SOURCES.index(e.source))
            )
    return best
