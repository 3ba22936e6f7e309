"""The results of a check: problems, and the findings and outcomes that the engine makes of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

from vqdoctor.core.frozen import frozen
from vqdoctor.core.levels import Confidence, Severity, Stage


@frozen
class Measurement:
    """One number behind a problem, against the limit that it broke.

    Attributes:
        name: what was measured, as an identifier ("gradient_ratio").
        value: what it was.
        limit: the limit that it is compared with; None for a number that only explains.
        unit: its unit ("codes", "%"); "" for a plain ratio.
    """

    name: str
    value: float
    limit: float | None = None
    unit: str = ""


@frozen
class Problem:
    """A problem, as a check yields it: a sentence, how bad, how sure, and the numbers behind it.

    Attributes:
        message: one sentence for the user, with the decisive number in it.
        severity: how bad it is if true.
        confidence: how sure it is.
        measurements: the numbers behind it, the decisive one first.
        decide_with: a flag that would turn a guess into a certainty ("--data batch.npz"); "" if sure.
        remedies: those of the check's remedies that fit this problem; () is all of them.
        explains: codes of findings that this one is shown to cause, whatever their checks name. It is then no
            symptom itself.
    """

    message: str
    severity: Severity
    confidence: Confidence = Confidence.HIGH
    measurements: tuple[Measurement, ...] = ()
    decide_with: str = ""
    remedies: tuple[str, ...] = ()
    explains: tuple[str, ...] = ()


@frozen
class Finding:
    """A problem on a layer (or the whole model), with its check's identity and its rank.

    Attributes:
        code: the check's code ("VQ101").
        name: the check's name ("straight-through-missing").
        stage: the stage of the priority order.
        severity: how bad; a root has the worst of itself and its symptoms.
        confidence: how sure.
        layer: the VQ layer, or None for the whole model.
        message: one sentence.
        measurements: the numbers behind it.
        remedies: names of remedies, the best first.
        explained_by: "code:layer" of the root cause that this is a symptom of, or None for a root.
        rank: 1 for what to look at first.
        decide_with: a flag that would make it certain; "" if it is.
        explains: codes of findings that it is shown to cause, whatever their checks name; see `Problem`.
    """

    code: str
    name: str
    stage: Stage
    severity: Severity
    confidence: Confidence
    layer: str | None
    message: str
    measurements: tuple[Measurement, ...] = ()
    remedies: tuple[str, ...] = ()
    explained_by: str | None = None
    rank: int = 0
    decide_with: str = ""
    explains: tuple[str, ...] = ()

    @property
    def fingerprint(self) -> str:
        """The identity of this finding between two runs: code and layer."""
        return f"{self.code}:{self.layer or ''}"

    def replace(self, **changes: Any) -> Finding:
        """Return a copy with some fields changed."""
        return replace(self, **changes)


Status = Literal["found", "passed", "skipped", "crashed"]


@frozen
class Outcome:
    """The outcome of one check on one layer: there is one for every pair, so that each is accounted for.

    Attributes:
        code: the check's code.
        layer: the layer, or None for a check of the whole model.
        status: found, passed, skipped or crashed.
        reason: why it was skipped, or what it crashed with; None otherwise.
    """

    code: str
    layer: str | None
    status: Status
    reason: str | None = None
