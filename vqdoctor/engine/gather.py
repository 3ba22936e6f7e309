"""Gathering evidence: running every probe that the file, the batch and the model allow."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from vqdoctor.core.errors import UserError
from vqdoctor.core.evidence import Evidence, NotFiniteError, Source, Unavailable
from vqdoctor.core.finding import Outcome
from vqdoctor.layouts.view import QuantizerView
from vqdoctor.metrics.geometry import Rows
from vqdoctor.probes.probe import C, Probe

CRASHED_PROBE = "probe:"
"""Begins the code of an outcome that is about a probe, and not about a check."""


@dataclass
class Gathered:
    """All that the probes of one examination found.

    Attributes:
        evidence: their measurements.
        unavailable: the measurements that were not possible, with reasons.
        crashed: an outcome for each crash.
        notes: remarks on the run of a model, one line each.
        views: VQ layers that the file does not show, and a model does.
        by_logits: the layers whose codes a model at work was seen to choose by logits, wherever they lie.
        vectors: each layer's z_e, float32 [N, D], where the data holds it.
    """

    evidence: list[Evidence] = field(default_factory=list)
    unavailable: list[Unavailable] = field(default_factory=list)
    crashed: list[Outcome] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    views: list[QuantizerView] = field(default_factory=list)
    by_logits: set[str] = field(default_factory=set)
    vectors: dict[str, Rows] = field(default_factory=dict)

    def run(
        self,
        probes: Iterable[Probe[C]],
        context: C,
        source: Source,
        progress: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Run the probes; a crash leaves a gap with its reason, and the others go on."""
        for probe in probes:
            progress(f"measuring {', '.join(kind.kind.replace('-', ' ') for kind in probe.kinds)}")
            try:
                for item in probe.measure(context):
                    if isinstance(item, Evidence):
                        self.evidence.append(item)
                    else:
                        self.unavailable.append(item)
            except UserError:
                raise
            except NotFiniteError as error:
                self.miss(probe.kinds, source, f"not a finite number: {error}", "")
            except Exception as error:  # a probe's bug costs its evidence, not the whole report
                said = f"{type(error).__name__}: {error}"
                self.miss(probe.kinds, source, f"its probe crashed: {said}", "")
                for kind in probe.kinds:
                    self.crash(kind.kind, said)

    def miss(
        self,
        kinds: Sequence[type[Evidence]],
        source: Source,
        reason: str,
        hint: str,
        layer: str | None = None,
    ) -> None:
        """Record why these kinds of evidence are missing."""
        self.unavailable += [
            Unavailable(kind=kind.kind, layer=layer, source=source, reason=reason, hint=hint)
            for kind in kinds
        ]

    def crash(self, what: str, error: str) -> None:
        """Record a crash, so that the report is incomplete."""
        code = f"{CRASHED_PROBE}{what}"
        self.crashed.append(Outcome(code=code, layer=None, status="crashed", reason=error))
