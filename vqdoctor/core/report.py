"""The report: the one value that every renderer, gate and comparison reads."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import field
from functools import cached_property
from typing import Any, ClassVar, Literal, Self, TypeVar

from vqdoctor.core.codec import decode, encode
from vqdoctor.core.errors import UserError
from vqdoctor.core.evidence import SOURCES, Evidence, TaskMetrics, Unavailable, Usage
from vqdoctor.core.finding import Finding, Outcome
from vqdoctor.core.frozen import frozen
from vqdoctor.core.gate import Gate
from vqdoctor.core.model_run import was_run
from vqdoctor.core.retraining import Retraining
from vqdoctor.core.source import SourcePatch

SCHEMA = 1
Verdict = Literal["collapsed", "at-risk", "inconclusive", "healthy"]
E = TypeVar("E", bound=Evidence)

_USAGE = (
    "source", "vectors", "used", "active", "expected_used", "share", "perplexity", "perplexity_low",
    "perplexity_high",
)  # fmt: skip
"""The figures of a usage that its layer repeats."""
_MODEL = {
    "accuracy": "accuracy", "bypass_accuracy": "bypass_accuracy", "ece": "ece", "samples": "sample_size",
    "split": "split",
}  # fmt: skip
"""The figures of the model: names in JSON, and fields of its task metrics."""


@frozen
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


@frozen
class LayerSummary:
    """One VQ layer of the report.

    Attributes:
        name: its path in the model ("vq", "rvq.layers.0"); "" never: a root layer is "vq".
        layout: the family of state-dict layouts it was recognised as.
        layout_confidence: how sure that is: low, medium or high.
        num_codes: K.
        dim: D.
        keys: role to raw key in the file ("codebook", "counts", "sums").
        attributes: the layer ("vq") and its tensors, by role, as Python expressions of the user's `model`.
    """

    derived: ClassVar = ("usage", "usage_by_source")
    name: str
    layout: str
    layout_confidence: str
    num_codes: int
    dim: int
    keys: Mapping[str, str] = field(default_factory=dict)
    attributes: Mapping[str, str] = field(default_factory=dict)


@frozen
class Candidate:
    """A tensor that looks a little like a codebook, for a file without a recognised VQ layer."""

    key: str
    shape: tuple[int, ...]
    why: str


@frozen
class PlanStep:
    """One step of the plan: a remedy, the roots that ask for it, and how to do it."""

    step: int
    remedy: str
    codes: tuple[str, ...]
    how: str
    code: str = ""


DRY_RUN = "nothing was written: a dry run"
"""The note of a report whose repairs were only tried in memory."""
NOT_WRITTEN = "nothing was written: the file can take none of the remedies, or needs none"
"""The note of a report of a fix that found nothing to apply."""
RepairStatus = Literal["applied", "no-effect", "reverted", "skipped"]


@frozen
class Change:
    """The change of one tensor of the file by a repair.

    Attributes:
        key: raw key of the tensor.
        what: the written values, in a few words ("865 of 1,024 codes").
        before: figures of the tensor before, by name ("largest").
        after: the same figures after.
    """

    key: str
    what: str
    before: Mapping[str, float] = field(default_factory=dict)
    after: Mapping[str, float] = field(default_factory=dict)


@frozen
class Repair:
    """The outcome of one remedy: its status and the figures before and after.

    Attributes:
        remedy: its name.
        status: applied, no-effect, reverted or skipped.
        reason: why it was not applied, or a note on it; may be empty.
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


@frozen
class Report:
    """All that an examination says, as plain values; `to_dict` and `from_dict` round-trip.

    Attributes:
        version: version of the vqdoctor that wrote it.
        checkpoint: the file, or None where a live model was examined.
        layers: the VQ layers.
        findings: in rank order: roots, each followed by its symptoms.
        plan: the remedies of the roots, in stage order; none of the recipe alone comes first.
        evidence: all that was measured.
        unavailable: all that could not be measured, with reasons and hints.
        outcomes: one for every check and layer.
        candidates: tensors near to a codebook, where no layer was recognised.
        notes: remarks of the reader, one line each.
        unread: tensors with the name of a codebook that could not be read, and why, one line each.
        repairs: what a fix did; empty for an inspection.
        verdict: collapsed, at-risk, inconclusive or healthy.
        gate: the decision of a gate; None without a gate.
        retraining: what a retraining did; None where there was none.
        source: the patch of the user's source; None without --source.
    """

    version: str
    checkpoint: CheckpointSummary | None
    layers: tuple[LayerSummary, ...]
    findings: tuple[Finding, ...]
    plan: tuple[PlanStep, ...]
    evidence: tuple[Evidence, ...]
    unavailable: tuple[Unavailable, ...]
    outcomes: tuple[Outcome, ...]
    candidates: tuple[Candidate, ...] = ()
    notes: tuple[str, ...] = ()
    unread: tuple[str, ...] = ()
    repairs: tuple[Repair, ...] = ()
    verdict: Verdict
    gate: Gate | None = None
    retraining: Retraining | None = None
    source: SourcePatch | None = None

    def find(self, kind: type[E], layer: str | None = None) -> E | None:
        """Return the evidence of that kind on that layer, from its best source; None if there is none."""
        for source in SOURCES:
            for evidence in self._evidence_on.get(layer, ()):
                if isinstance(evidence, kind) and evidence.source == source:
                    return evidence
        return None

    @cached_property
    def _evidence_on(self) -> Mapping[str | None, list[Evidence]]:
        """All evidence by its layer."""
        found: dict[str | None, list[Evidence]] = {}
        for evidence in self.evidence:
            found.setdefault(evidence.layer, []).append(evidence)
        return found

    def usages(self, layer: str) -> dict[str, Usage]:
        """Return that layer's usage by source, the best source first."""
        by_source = {e.source: e for e in self._evidence_on.get(layer, ()) if isinstance(e, Usage)}
        return {source: by_source[source] for source in SOURCES if source in by_source}

    @property
    def runs_model(self) -> bool:
        """Whether a model was run for it."""
        return was_run(self.evidence)

    def roots(self) -> tuple[Finding, ...]:
        """Return the findings that no other finding explains, in rank order."""
        return tuple(f for f in self.findings if f.explained_by is None)

    def symptoms(self, root: Finding) -> tuple[Finding, ...]:
        """Return the findings that `root` explains, in rank order."""
        return tuple(f for f in self.findings if f.explained_by == root.fingerprint)

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON object of schema 1."""
        plain = encode(self)
        metrics = self.find(TaskMetrics)
        for layer in plain["layers"]:
            usages = {
                source: {name: getattr(usage, name) for name in _USAGE}
                for source, usage in self.usages(layer["name"]).items()
            }
            layer |= {"usage": next(iter(usages.values()), None), "usage_by_source": usages}
        model = metrics and {name: getattr(metrics, field) for name, field in _MODEL.items()}
        return {
            "schema": SCHEMA,
            "tool": {"name": "vqdoctor", "version": plain.pop("version")},
            "checkpoint": plain.pop("checkpoint"),
            "layers": plain.pop("layers"),
            "model": model,
            **plain,
        }

    def to_json(self, indent: int | None = 2) -> str:
        """Return schema 1 as text; no NaN is ever written."""
        return json.dumps(self.to_dict(), indent=indent, allow_nan=False, ensure_ascii=False)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Return the report that `to_dict` wrote.

        Raises:
            UserError: if `data` is not a report of schema 1.
        """
        if data.get("schema") != SCHEMA:
            raise UserError(
                f"schema {data.get('schema')!r} is not a report that this version reads",
                f"it reads schema {SCHEMA}",
            )
        tool = data.get("tool")
        version = tool.get("version") if isinstance(tool, Mapping) else None
        # The other names at the top are told by these, or are a later version's.
        own = {name: data[name] for name in cls.__dataclass_fields__ if name in data}
        return decode(cls, {**own, "version": version}, "report")
