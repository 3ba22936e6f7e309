"""A report with as many findings as wanted, on layers that are called as wanted."""

from __future__ import annotations

from vqdoctor.core.finding import Finding, Outcome
from vqdoctor.core.levels import Confidence, Severity, Stage
from vqdoctor.core.report import CheckpointSummary, LayerSummary, Report


def many(amount: int, *, path: str = "runs/a.pt", layer: str = "vq") -> Report:
    """Return a report of `amount` dead-code findings on the layers `layer`, `layer.1`, `layer.2`, …"""
    names = [layer, *(f"{layer}.{i}" for i in range(1, amount))]
    findings = tuple(
        Finding(
            code="VQ502",
            name="dead-codes",
            stage=Stage.USAGE,
            severity=Severity.ERROR,
            confidence=Confidence.HIGH,
            layer=name,
            message=f"Only 1 of 256 codes of {name} is active.",
            rank=rank,
        )
        for rank, name in enumerate(names, start=1)
    )
    return Report(
        version="0.1.0",
        checkpoint=CheckpointSummary(path=path, fingerprint="0", sha256=None, container="torch-zip", bytes=1),
        layers=tuple(
            LayerSummary(name=n, layout="conv2d-vq", layout_confidence="high", num_codes=256, dim=64)
            for n in names
        ),
        evidence=(),
        unavailable=(),
        outcomes=tuple(Outcome(code="VQ502", layer=name, status="found") for name in names),
        findings=findings,
        plan=(),
        verdict="collapsed",
    )
