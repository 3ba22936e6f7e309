"""Gathering evidence: running every probe that the file, the batch and the model allow."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from vqdoctor.core.errors import UserError
from vqdoctor.core.evidence import Evidence, NotFiniteError, Source, Unavailable
from vqdoctor.core.finding import Outcome
from vqdoctor.probes.probe import C, Probe


@dataclass
class Gathered:
    """What the probes found, what they could not, and which of them crashed."""

    evidence: list[Evidence] = field(default_factory=list)
    unavailable: list[Unavailable] = field(default_factory=list)
    crashed: list[Outcome] = field(default_factory=list)

    def run(
        self,
        probes: Iterable[Probe[C]],
        context: C,
        source: Source,
        progress: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Run the probes; one that crashes leaves a gap with its reason, and the others go on."""
        for probe in probes:
            names = ", ".join(kind.kind.replace("-", " ") for kind in probe.kinds)
            progress(f"measuring {names}")
            try:
                for item in probe.measure(context):
                    self._take(item)
            except UserError:
                raise
            except NotFiniteError as error:
                self.miss(probe.kinds, source, f"not a finite number: {error}", "")
            except Exception as error:  # a probe's bug costs its evidence, not the whole report
                self._crash(probe, source, f"{type(error).__name__}: {error}")

    def _take(self, item: Evidence | Unavailable) -> None:
        if isinstance(item, Evidence):
            self.evidence.append(item)
        else:
            self.unavailable.append(item)

    def miss(self, kinds: Sequence[type[Evidence]], source: Source, reason: str, hint: str) -> None:
        """Record kinds of evidence for which there was nothing to look at."""
        self.unavailable += [
            Unavailable(kind=kind.kind, source=source, reason=reason, hint=hint) for kind in kinds
        ]

    def _crash(self, probe: Probe[C], source: Source, error: str) -> None:
        self.miss(probe.kinds, source, f"its probe crashed: {error}", "")
        for kind in probe.kinds:
            self.crash(kind.kind, error)

    def crash(self, what: str, error: str) -> None:
        """Record that looking at something crashed, so that the report is incomplete."""
        self.crashed.append(Outcome(code=f"probe:{what}", layer=None, status="crashed", reason=error))
