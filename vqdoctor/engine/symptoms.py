"""A running training's symptoms: when they began, when to examine the model, and which causes to report."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from vqdoctor.checks import all_checks
from vqdoctor.core.evidence import EncoderSpread, Evidence, GradientPath, NonFinite, Usage
from vqdoctor.core.finding import Finding
from vqdoctor.core.levels import Severity, Stage
from vqdoctor.core.report import Report
from vqdoctor.core.settings import Settings
from vqdoctor.core.trace import Event
from vqdoctor.core.undecided import CAUSES_IN_USE
from vqdoctor.engine.evaluate import choose, evaluate
from vqdoctor.engine.rank import rank

AT_THE_END = ("VQ313", "VQ401", "VQ603", "VQ605", "VQ606", "VQ607", "VQ903")
"""Checks of a training that is over: at its start every model is at chance."""
MEANWHILE = {"VQ302": {"start_weight": 0.5}}
"""Limits of a training that goes on: every EMA is young at first, and only one that is mostly start values
while the usage is poor is a cause: one of decay 0.99 for 69 steps, one of 0.9999 for 6,931."""
OF_LOSSES = ("VQ2", "VQ6")
"""Checks that need the task's losses, which a replay of the model's calls does not have."""
SEEN = (Usage, EncoderSpread, NonFinite, GradientPath)
"""The evidence that a training gives in passing."""
RISING = 1.1
"""A perplexity that grew by this factor since the symptom began is on its way up: the symptom waits."""
PATIENCE = 10
"""Intervals for which it waits at the start of a training; a layer that was sound is not waited for."""
SPARE = 2
"""Examinations of a training beyond the logarithm of its intervals."""
LASTS = 2
"""Intervals that a symptom lasts before it is reported: a single one may be noise."""
YOUNG = 4
"""Intervals that poor usage without a cause lasts at the start of a training. The second level of a sound
DAC had perplexities of 48, 28, 28, 49 and 56 in its first intervals of 50 steps, and 90 of 256 at its end."""


@dataclass(kw_only=True)
class Symptom:
    """A finding that interval after interval shows.

    Attributes:
        since: the step of the first.
        perplexity: the layer's, there.
        intervals: how many have shown it.
    """

    since: int
    perplexity: float | None
    intervals: int = 0


@dataclass(kw_only=True, eq=False)
class Symptoms:
    """The symptoms of a training.

    Attributes:
        layers: names of its VQ layers.
        examine: makes a whole examination of the model as it is now; None where that fails.
        known: code and layer to the symptom.
        told: code and layer of the reported findings.
        examined: code and layer of the symptoms that an examination has seen.
        sound: layers whose usage was without a symptom in some interval.
        report: the newest examination.
        intervals: how many were judged.
        examinations: how many were made.
        next: the interval from which on symptoms that last lead to the next one.
    """

    layers: Sequence[str]
    examine: Callable[[], Report | None]
    known: dict[str, Symptom] = field(default_factory=dict)
    told: set[str] = field(default_factory=set)
    examined: set[str] = field(default_factory=set)
    sound: set[str | None] = field(default_factory=set)
    report: Report | None = None
    intervals: int = 0
    examinations: int = 0
    next: int = 0

    def __post_init__(self) -> None:
        """Choose the checks that this evidence is enough for."""
        self._checks = tuple(
            check
            for check in choose(all_checks(), Settings(ignore=AT_THE_END))
            if any(w.evidence in SEEN for w in check.wants)
            and all(w.evidence in SEEN for w in check.wants if w.required)
        )

    def look(self, step: int, evidence: Sequence[Evidence]) -> list[Event]:
        """Judge the evidence of an interval, and return the findings to report.

        A new symptom has the model examined for its cause, and so have symptoms that last, after ever longer
        times: the examinations of a training are few, however long it is. A cause in the gradients or the
        losses is reported at once. Any other, and a symptom without a cause, is reported when the symptom
        lasts and the perplexity is not rising: at its start every training is restless.
        """
        found = evaluate(self._checks, self.layers, evidence, ()).findings
        findings = [f for f in rank(found, self._checks) if f.severity > Severity.NOTE]
        perplexity = {e.layer: e.perplexity for e in evidence if isinstance(e, Usage)}
        self.known = {
            f.fingerprint: self.known.get(f.fingerprint)
            or Symptom(since=step, perplexity=perplexity.get(f.layer))
            for f in findings
        }
        for symptom in self.known.values():
            symptom.intervals += 1
        self.sound |= perplexity.keys() - {f.layer for f in findings if f.stage == Stage.USAGE}
        open_ = [f for f in findings if f.fingerprint not in self.told]
        if self._is_due(open_):
            self.report = self.examine() or self.report
        lasting = [f for f in open_ if self._lasts(f, perplexity)]
        causes = self._causes(open_, at_once=True) + self._causes(lasting)
        lasting = [f for f in lasting if f.explained_by is None and not self._is_young(f)]
        events = [self._event(step, finding, findings) for finding in (*causes, *lasting)]
        return [event for event in events if event is not None]

    def _is_due(self, symptoms: Sequence[Finding]) -> bool:
        """Whether it is time to examine the model."""
        self.intervals += 1
        names = {f.fingerprint for f in symptoms}
        few = self.examinations < SPARE + self.intervals.bit_length()
        if not names or not few or not (names - self.examined or self.intervals >= self.next):
            return False
        self.examined |= names
        self.examinations += 1
        self.next = 2 * self.intervals
        return True

    def _lasts(self, finding: Finding, perplexity: dict[str | None, float]) -> bool:
        symptom = self.known[finding.fingerprint]
        now = perplexity.get(finding.layer)
        rises = now is not None and symptom.perplexity is not None and now > RISING * symptom.perplexity
        waits = rises and finding.layer not in self.sound and symptom.intervals < PATIENCE
        return finding.stage != Stage.USAGE or (symptom.intervals >= LASTS and not waits)

    def _is_young(self, finding: Finding) -> bool:
        """Whether the usage of a layer was never sound, and may still become so."""
        young = finding.stage == Stage.USAGE and finding.layer not in self.sound
        return young and self.known[finding.fingerprint].intervals < YOUNG

    def _causes(self, symptoms: Iterable[Finding], *, at_once: bool = False) -> list[Finding]:
        """Return the roots of the newest examination that explain one of the symptoms.

        Args:
            symptoms: the symptoms.
            at_once: whether causes in the gradients and the losses are asked for, else all.
        """
        if self.report is None:
            return []
        names = {f.fingerprint for f in symptoms}
        return [
            root
            for root in self.report.roots()
            if root.severity > Severity.NOTE
            and (root.stage <= Stage.LOSS or not at_once)
            and (root.stage < Stage.USAGE or root.code in CAUSES_IN_USE)
            and (root.fingerprint in names or names & {f.fingerprint for f in self.report.symptoms(root)})
        ]

    def _event(self, step: int, finding: Finding, symptoms: Iterable[Finding]) -> Event | None:
        """Return a finding as an event, once; the symptoms that it explains count as reported."""
        explained = {f.fingerprint for f in (self.report.symptoms(finding) if self.report else ())}
        own = [self.known[f.fingerprint].since for f in symptoms if f.fingerprint in explained]
        at = self.known.get(finding.fingerprint)
        known = finding.fingerprint in self.told
        self.told |= {finding.fingerprint, *explained}
        if known:
            return None
        return Event(
            step=step,
            layer=finding.layer,
            code=finding.code,
            severity=finding.severity,
            message=finding.message,
            since=min([*own, *([at.since] if at else [])], default=step),
            remedies=finding.remedies,
        )
