"""A running training's symptoms: when they began, when to examine the model, and which causes to report."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from vqdoctor.checks import all_checks
from vqdoctor.core.evidence import (
    CountsUsage,
    EmaRelation,
    EncoderSpread,
    Evidence,
    GradientPath,
    NonFinite,
    Usage,
)
from vqdoctor.core.finding import Finding
from vqdoctor.core.levels import Severity, Stage
from vqdoctor.core.report import Report
from vqdoctor.core.settings import Settings
from vqdoctor.core.trace import Event
from vqdoctor.core.undecided import CAUSES_IN_USE, COLLAPSE
from vqdoctor.engine.evaluate import choose, evaluate
from vqdoctor.engine.rank import rank

AT_THE_END = ("VQ313", "VQ401", "VQ603", "VQ605", "VQ606", "VQ607", "VQ903")
"""Checks of a training that is over: at its start every model is at chance."""
MEANWHILE = {"VQ302": {"start_weight": 0.5}, "VQ508": {"vectors_per_code": 3.0}}
"""Limits of a training that goes on. Every EMA is young at first, and only one that is mostly start values
while the usage is poor is a cause: one of decay 0.99 for 69 steps, one of 0.9999 for 6,931. The usage of an
interval rests on 3 vectors per code and more."""
OF_LOSSES = ("VQ2", "VQ6")
"""Checks that need the task's losses, which a replay of the model's calls does not have."""
SEEN = (Usage, EncoderSpread, NonFinite, GradientPath, EmaRelation, CountsUsage)
"""The evidence that a training gives in passing."""
IN_CODE = frozenset({"VQ309", "VQ310"})
"""Causes in the EMA's update and the lookup: faults of the code, which stay however long it trains. A single
look at the codebook is a reason to examine the model, and an examination that finds them is enough."""
YOUNG = 200
"""Steps at the start of a training in which poor usage is not reported. Codes that start outside the data
come into use later: in healthy trainings of six implementations after at most 50 steps, of DAC after 50 to
370, and at step 200 it rose fast."""
LASTS = 2
"""Intervals that a symptom lasts before it is reported: a single one may be noise."""
AHEAD = 200
"""Steps within which usage that grows as it did since its lowest must reach its limit, or it is reported.
DAC's took 10 to 100 at step 200; collapses that crawl up, from 2.3 codes of 256 to 2.7, over 1,000."""
PATIENCE = 1000
"""Steps for which a symptom that grows so fast, or is in doubt, is not reported."""
SPARE = 2
"""Examinations of a training beyond the logarithm of its intervals."""


@dataclass(kw_only=True)
class Symptom:
    """A finding that interval after interval shows.

    Attributes:
        since: the step of the first.
        intervals: how many have shown it.
        share: its figure over the figure's limit, in the newest; None without a limit.
        lowest: the least of them.
        lowest_at: the step of that one.
    """

    since: int
    intervals: int = 0
    share: float | None = None
    lowest: float = math.inf
    lowest_at: int = 0

    def note(self, finding: Finding, step: int) -> None:
        """Take up one more interval."""
        self.intervals += 1
        first = next(iter(finding.measurements), None)
        self.share = first.value / first.limit if first is not None and first.limit else None
        if self.share is not None and self.share <= self.lowest:
            self.lowest, self.lowest_at = self.share, step

    def is_mending(self, step: int) -> bool:
        """Whether the figure reaches its limit soon, if it grows as it did since its lowest."""
        passed = step - self.lowest_at
        if self.share is None or not passed or not 0 < self.lowest < 1:
            return False
        growth = math.log(self.share / self.lowest) / passed
        return math.log(self.share) + AHEAD * growth >= 0


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
            for check in choose(all_checks(), Settings(ignore=AT_THE_END, limits=MEANWHILE))
            if any(w.evidence in SEEN for w in check.wants)
            and all(w.evidence in SEEN for w in check.wants if w.required)
        )

    def look(self, step: int, evidence: Sequence[Evidence]) -> list[Event]:
        """Judge the evidence of an interval, and return the findings to report.

        A new symptom has the model examined for its cause, and so have symptoms that last, after ever longer
        times: the examinations of a training are few, however long it is. A cause in the gradients, the
        losses or the code is reported at once. Any other, and a symptom without a cause, is reported when
        the symptom lasts: not before step `YOUNG`, as every codebook is restless at first, and on a layer
        that never was sound not while the usage is about to reach its limit.
        """
        evaluated = evaluate(self._checks, self.layers, evidence, ())
        findings = [f for f in rank(evaluated.findings, self._checks) if f.severity > Severity.NOTE]
        self.known = {f.fingerprint: self.known.get(f.fingerprint) or Symptom(since=step) for f in findings}
        for finding in findings:
            self.known[finding.fingerprint].note(finding, step)
        poor = {f.layer for f in findings if f.stage == Stage.USAGE}
        passed = {o.layer for o in evaluated.outcomes if o.code == COLLAPSE and o.status == "passed"}
        self.sound |= passed - poor if step >= YOUNG else set()
        open_ = [f for f in findings if f.fingerprint not in self.told]
        if self._is_due(open_):
            self.report = self.examine() or self.report
        lasting = [f for f in open_ if self._lasts(f, step)]
        causes = self._causes(open_, at_once=True) + self._causes(lasting)
        events = [self._event(step, cause, findings) for cause in causes]
        without = (f for f in lasting if f.code not in IN_CODE and not self._is_explained(f))
        events += [self._event(step, finding, findings) for finding in without]
        return [event for event in events if event is not None]

    def _is_due(self, symptoms: Sequence[Finding]) -> bool:
        """Whether it is time to examine the model."""
        self.intervals += 1
        names = {f.fingerprint for f in symptoms if f.explained_by is None}
        few = self.examinations < SPARE + self.intervals.bit_length()
        if not names or not few or not (names - self.examined or self.intervals >= self.next):
            return False
        self.examined |= names
        self.examinations += 1
        self.next = 2 * self.intervals
        return True

    def _lasts(self, finding: Finding, step: int) -> bool:
        """Whether a symptom is there to stay, as far as one can tell."""
        if finding.stage != Stage.USAGE:
            return True
        symptom = self.known[finding.fingerprint]
        in_doubt = finding.code == COLLAPSE and finding.severity < Severity.ERROR
        waits = in_doubt or (finding.layer not in self.sound and symptom.is_mending(step))
        if waits and step < symptom.since + PATIENCE:
            return False
        return step >= YOUNG and symptom.intervals >= LASTS

    def _is_explained(self, finding: Finding) -> bool:
        """Whether a cause of the symptom was reported; another finding on the usage is not one."""
        code, _, _ = (finding.explained_by or "").partition(":")
        return finding.explained_by in self.told and (code in CAUSES_IN_USE or not code.startswith("VQ5"))

    def _causes(self, symptoms: Iterable[Finding], *, at_once: bool = False) -> list[Finding]:
        """Return the roots of the newest examination that explain one of the symptoms.

        Args:
            symptoms: the symptoms.
            at_once: whether causes in the gradients, the losses and the code are asked for, else all.
        """
        if self.report is None:
            return []
        names = {f.fingerprint for f in symptoms}
        return [
            root
            for root in self.report.roots()
            if root.severity > Severity.NOTE
            and (root.stage <= Stage.LOSS or root.code in IN_CODE or not at_once)
            and _is_cause(root)
            and (root.fingerprint in names or names & {f.fingerprint for f in self.report.symptoms(root)})
        ]

    def _event(self, step: int, finding: Finding, symptoms: Iterable[Finding]) -> Event | None:
        """Return a finding as an event, once; the symptoms that it explains count as reported."""
        known_by = self.report.symptoms(finding) if self.report and _is_cause(finding) else ()
        explained = {f.fingerprint for f in known_by}
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


def _is_cause(finding: Finding) -> bool:
    """Whether a finding is a cause, and no measure of its effect on the usage."""
    return finding.stage < Stage.USAGE or finding.code in CAUSES_IN_USE
