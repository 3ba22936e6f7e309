"""The report: the one value that every renderer, gate and comparison reads."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Self, TypeVar

from vqdoctor.core.errors import UserError
from vqdoctor.core.evidence import SOURCES, Evidence, TaskMetrics, Unavailable, Usage
from vqdoctor.core.finding import Finding, Outcome
from vqdoctor.core.gate import Gate
from vqdoctor.core.retraining import Retraining
from vqdoctor.core.typed import misfits

SCHEMA = 1
Verdict = Literal["collapsed", "at-risk", "inconclusive", "healthy"]
E = TypeVar("E", bound=Evidence)

_USAGE_FIELDS = (
    "used", "active", "expected_used", "share", "perplexity", "perplexity_low", "perplexity_high",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class CheckpointSummary:
    """Which file was examined.

    Attributes:
        path: as the user named it.
        fingerprint: cheap identity: directory, VQ tensors and spread blocks.
        sha256: of the whole file, where every byte was read; else None.
        container: "torch-zip", "safetensors", …
        bytes: size of the file.
    """

    path: str
    fingerprint: str
    sha256: str | None
    container: str
    bytes: int


@dataclass(frozen=True, kw_only=True)
class LayerSummary:
    """One VQ layer of the report.

    Attributes:
        name: its path in the model ("vq", "rvq.layers.0"); "" never: a root layer is "vq".
        layout: the family of state-dict layouts it was recognised as.
        layout_confidence: how sure that is: low, medium or high.
        num_codes: K.
        dim: D.
        keys: role to raw key in the file ("codebook", "counts", "sums").
    """

    name: str
    layout: str
    layout_confidence: str
    num_codes: int
    dim: int
    keys: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A tensor that looks a little like a codebook, for a file in which none was recognised."""

    key: str
    shape: tuple[int, ...]
    why: str


@dataclass(frozen=True, kw_only=True)
class PlanStep:
    """One step of the plan: a remedy, the roots that ask for it, and how to do it."""

    step: int
    remedy: str
    codes: tuple[str, ...]
    how: str
    code: str = ""


DRY_RUN = "nothing was written: a dry run"
"""The note of a report whose repairs were only tried in memory."""
RepairStatus = Literal["applied", "no-effect", "reverted", "skipped"]


@dataclass(frozen=True, kw_only=True)
class Change:
    """What a repair writes into one tensor of the file.

    Attributes:
        key: raw key of the tensor.
        what: what is written, in a few words ("865 of 1,024 codes").
        before: figures of the tensor before, by name ("largest").
        after: the same figures after.
    """

    key: str
    what: str
    before: Mapping[str, float] = field(default_factory=dict)
    after: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Repair:
    """What became of one remedy: its status and the figures before and after.

    Attributes:
        remedy: its name.
        status: applied, no-effect, reverted or skipped.
        reason: why it was not applied, or what is to be known of it; "" where there is nothing to say.
        before: figures before, by name ("dead", "perplexity").
        after: the same figures after; one that is missing was not measured.
        layer: the VQ layer; None for the whole model.
        changes: what it writes, tensor by tensor.
    """

    remedy: str
    status: RepairStatus
    reason: str = ""
    before: Mapping[str, float] = field(default_factory=dict)
    after: Mapping[str, float] = field(default_factory=dict)
    layer: str | None = None
    changes: tuple[Change, ...] = ()

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Return the repair that a report's JSON holds."""
        return cls(**{**data, "changes": tuple(Change(**c) for c in data.get("changes", ()))})


@dataclass(frozen=True, kw_only=True)
class Report:
    """All that an examination says, as plain values; `to_dict` and `from_dict` round-trip.

    Attributes:
        version: version of the vqdoctor that wrote it.
        checkpoint: the file, or None where a live model was examined.
        layers: the VQ layers.
        evidence: all that was measured.
        unavailable: all that could not be measured, with reasons and hints.
        outcomes: one for every check and layer.
        findings: in rank order: roots, each followed by its symptoms.
        plan: the remedies of the roots, in stage order.
        verdict: collapsed, at-risk, inconclusive or healthy.
        candidates: tensors near to a codebook, where no layer was recognised.
        notes: remarks of the reader, one line each.
        repairs: what a fix did; empty for an inspection.
        gate: what a gate decided; None where none was asked.
        retraining: what a retraining did; None where there was none.
    """

    version: str
    checkpoint: CheckpointSummary | None
    layers: tuple[LayerSummary, ...]
    evidence: tuple[Evidence, ...]
    unavailable: tuple[Unavailable, ...]
    outcomes: tuple[Outcome, ...]
    findings: tuple[Finding, ...]
    plan: tuple[PlanStep, ...]
    verdict: Verdict
    candidates: tuple[Candidate, ...] = ()
    notes: tuple[str, ...] = ()
    repairs: tuple[Repair, ...] = ()
    gate: Gate | None = None
    retraining: Retraining | None = None

    def find(self, kind: type[E], layer: str | None = None) -> E | None:
        """Return the evidence of that kind on that layer, from its best source; None if there is none."""
        for source in SOURCES:
            for evidence in self.evidence:
                if isinstance(evidence, kind) and evidence.layer == layer and evidence.source == source:
                    return evidence
        return None

    def usages(self, layer: str) -> dict[str, Usage]:
        """Return that layer's usage by source, the best source first."""
        by_source = {e.source: e for e in self.evidence if isinstance(e, Usage) and e.layer == layer}
        return {source: by_source[source] for source in SOURCES if source in by_source}

    def roots(self) -> tuple[Finding, ...]:
        """Return the findings that no other finding explains, in rank order."""
        return tuple(f for f in self.findings if f.explained_by is None)

    def symptoms(self, root: Finding) -> tuple[Finding, ...]:
        """Return the findings that `root` explains, in rank order."""
        return tuple(f for f in self.findings if f.explained_by == root.fingerprint)

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON object of schema 1."""
        metrics = self.find(TaskMetrics)
        return {
            "schema": SCHEMA,
            "tool": {"name": "vqdoctor", "version": self.version},
            "checkpoint": asdict(self.checkpoint) if self.checkpoint else None,
            "layers": [self._layer_dict(layer) for layer in self.layers],
            "model": _model_dict(metrics) if metrics else None,
            "findings": [f.to_dict() for f in self.findings],
            "plan": [{**asdict(s), "codes": list(s.codes)} for s in self.plan],
            "evidence": [e.to_dict() for e in self.evidence],
            "unavailable": [u.to_dict() for u in self.unavailable],
            "outcomes": [o.to_dict() for o in self.outcomes],
            "candidates": [{**asdict(c), "shape": list(c.shape)} for c in self.candidates],
            "notes": list(self.notes),
            "repairs": [asdict(r) for r in self.repairs],
            "verdict": self.verdict,
            "gate": self.gate.to_dict() if self.gate else None,
            "retraining": self.retraining.to_dict() if self.retraining else None,
        }

    def _layer_dict(self, layer: LayerSummary) -> dict[str, Any]:
        by_source = {source: _usage_dict(u) for source, u in self.usages(layer.name).items()}
        return {
            **asdict(layer),
            "usage": next(iter(by_source.values()), None),
            "usage_by_source": by_source,
        }

    def to_json(self, indent: int | None = 2) -> str:
        """Return schema 1 as text; no NaN is ever written."""
        return json.dumps(self.to_dict(), indent=indent, allow_nan=False, ensure_ascii=False)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Return the report that `to_dict` wrote.

        Raises:
            UserError: if `data` is no report of schema 1.
        """
        if data.get("schema") != SCHEMA:
            raise UserError(
                f"schema {data.get('schema')!r} is not a report that this version reads",
                f"it reads schema {SCHEMA}",
            )
        try:
            layers = tuple(
                LayerSummary(**{k: v for k, v in x.items() if k not in ("usage", "usage_by_source")})
                for x in data["layers"]
            )
            report = cls(
                version=data["tool"]["version"],
                checkpoint=CheckpointSummary(**data["checkpoint"]) if data["checkpoint"] else None,
                layers=layers,
                evidence=tuple(Evidence.from_dict(e) for e in data["evidence"]),
                unavailable=tuple(Unavailable.from_dict(u) for u in data["unavailable"]),
                outcomes=tuple(Outcome.from_dict(o) for o in data["outcomes"]),
                findings=tuple(Finding.from_dict(f) for f in data["findings"]),
                plan=tuple(PlanStep(**{**s, "codes": tuple(s["codes"])}) for s in data["plan"]),
                verdict=data["verdict"],
                candidates=tuple(Candidate(**{**c, "shape": tuple(c["shape"])}) for c in data["candidates"]),
                notes=tuple(data["notes"]),
                repairs=tuple(Repair.from_dict(r) for r in data["repairs"]),
                gate=Gate.from_dict(data["gate"]) if data.get("gate") else None,
                retraining=Retraining.from_dict(data["retraining"]) if data.get("retraining") else None,
            )
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise UserError(
                f"the report is damaged: {type(error).__name__} {error}", "write it again"
            ) from error
        wrong = next(misfits(report, "report"), None)
        if wrong:
            raise UserError(f"the report is damaged: {wrong}", "write it again")
        return report


def _usage_dict(usage: Usage) -> dict[str, Any]:
    return {
        "source": usage.source,
        "vectors": usage.vectors,
        **{name: getattr(usage, name) for name in _USAGE_FIELDS},
    }


def _model_dict(metrics: TaskMetrics) -> dict[str, Any]:
    return {
        "accuracy": metrics.accuracy,
        "bypass_accuracy": metrics.bypass_accuracy,
        "ece": metrics.ece,
        "samples": metrics.sample_size,
        "split": metrics.split,
    }
