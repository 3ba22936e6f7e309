"""The decision of a gate: one judgement for every assertion, and one for the whole."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, Self

from vqdoctor.core.frozen import frozen

GateStatus = Literal["pass", "fail", "inconclusive"]


@frozen
class Judgement:
    """One assertion, judged on one layer or on the whole model.

    Attributes:
        metric: what is compared: "perplexity", "usage", "dead", "ece", "accuracy"; or "layers", the VQ
            layers that were found, and "crashed", the checks that crashed, where they forbid a pass.
        layer: the VQ layer, or None for the whole model.
        relation: ">=" or "<=".
        threshold: what it is compared with.
        value: the measured figure; None if it is unknown.
        low: lower end of its interval; None where it has none.
        high: upper end of its interval; None where it has none.
        status: pass, fail or inconclusive.
        level: "error" fails the gate, "warn" only says so.
        reason: one sentence: the comparison, where the figure is from, and what an inconclusive one takes.
        baseline: the baseline's figure, where the threshold is what may be lost of it; else None.
        aggregate: "median" or "worst" where the figures are those of several reports together; else None.
    """

    metric: str
    layer: str | None
    relation: Literal[">=", "<="]
    threshold: float
    value: float | None = None
    low: float | None = None
    high: float | None = None
    status: GateStatus = "inconclusive"
    level: Literal["warn", "error"] = "error"
    reason: str = ""
    baseline: float | None = None
    aggregate: Literal["median", "worst"] | None = None

    @property
    def fingerprint(self) -> str:
        """The stable name of this assertion: it holds across runs and thresholds."""
        drop = "-drop" if self.baseline is not None else ""
        of = f"{self.aggregate}-" if self.aggregate else ""
        return f"gate/{of}{self.metric}{drop}:{self.layer or ''}"


@frozen
class Gate:
    """The decision of a gate on one report.

    Attributes:
        status: fail if an error-level judgement failed or a finding fails it, else inconclusive if an
            error-level judgement is, else pass; what is hidden does not count.
        judgements: one for every assertion and layer.
        hidden: fingerprints of findings and judgements that were there before and are silenced.
        failing: fingerprints of the findings at or above the bar that fail it.
    """

    status: GateStatus
    judgements: tuple[Judgement, ...]
    hidden: tuple[str, ...] = ()
    failing: tuple[str, ...] = ()

    @classmethod
    def of(
        cls, judgements: Iterable[Judgement], *, hidden: Iterable[str] = (), failing: Iterable[str] = ()
    ) -> Self:
        """Return the decision that follows from these judgements and failing findings."""
        judgements, hidden, failing = tuple(judgements), tuple(hidden), tuple(failing)
        counted = {j.status for j in judgements if j.level == "error" and j.fingerprint not in hidden}
        status: GateStatus = "inconclusive" if "inconclusive" in counted else "pass"
        if failing or "fail" in counted:
            status = "fail"
        return cls(status=status, judgements=judgements, hidden=hidden, failing=failing)
