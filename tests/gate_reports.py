"""Hand-made reports to hold assertions against."""

from __future__ import annotations

from vqdoctor.core.evidence import Evidence, TaskMetrics, Unavailable, Usage
from vqdoctor.core.finding import Finding, Outcome
from vqdoctor.core.levels import Confidence, Severity, Stage
from vqdoctor.core.report import CheckpointSummary, LayerSummary, Report


def a_usage(perplexity: float = 180.0, half: float = 5.0, **changes: object) -> Usage:
    """Usage of 256 codes, of 16,384 vectors that are as good as independent ones."""
    values: dict[str, object] = {
        "layer": "vq",
        "source": "batch",
        "sample_size": 16_384,
        "num_codes": 256,
        "used": 250,
        "active": 240,
        "expected_used": 256.0,
        "expected_active": 256.0,
        "share": 250 / 256,
        "perplexity": perplexity,
        "perplexity_low": perplexity - half,
        "perplexity_high": perplexity + half,
        "plug_in_perplexity": perplexity,
        "estimator": "grassberger",
        "max_share": 0.03,
        "groups": 1024,
        "effective_size": 16_384.0,
        "count_quantiles": tuple(float(i * 4) for i in range(33)),
    }
    return Usage(**{**values, **changes})  # type: ignore[arg-type]


def of_ema(perplexity: float = 180.0, half: float = 1.0, **changes: object) -> Usage:
    """The same from EMA counts of decay 0.99, worth 51,200 vectors."""
    values: dict[str, object] = {
        "source": "checkpoint",
        "sample_size": 256,
        "groups": None,
        "window": 200.0,
        "effective_size": 51_200.0,
        "estimator": "ema-counts",
    }
    return a_usage(perplexity, half, **{**values, **changes})


METRICS = TaskMetrics(
    source="batch",
    sample_size=400,
    split="val",
    accuracy=0.95,
    ece=0.03,
    ece_low=0.01,
    ece_high=0.05,
    loss=0.2,
    bypass_loss=None,
    shuffled_loss=0.9,
    mean_code_loss=2.0,
)


def a_finding(code: str, layer: str | None = "vq", **changes: object) -> Finding:
    values: dict[str, object] = {
        "code": code,
        "name": "some-problem",
        "stage": Stage(int(code[2])),
        "severity": Severity.ERROR,
        "confidence": Confidence.HIGH,
        "layer": layer,
        "message": "Something is wrong.",
    }
    return Finding(**{**values, **changes})  # type: ignore[arg-type]


def a_report(*evidence: Evidence, path: str = "a.pt", **changes: object) -> Report:
    names = dict.fromkeys(e.layer for e in evidence if isinstance(e, Usage)) or {"vq": None}
    layers = tuple(
        LayerSummary(name=str(name), layout="embedding", layout_confidence="high", num_codes=256, dim=64)
        for name in names
    )
    values: dict[str, object] = {
        "version": "0.1.0",
        "checkpoint": CheckpointSummary(
            path=path, fingerprint="f", sha256=None, container="torch-zip", bytes=1
        ),
        "layers": layers,
        "evidence": evidence,
        "unavailable": (),
        "outcomes": (),
        "findings": (),
        "plan": (),
        "verdict": "healthy",
    }
    return Report(**{**values, **changes})  # type: ignore[arg-type]


def no_usage(reason: str = "EMA counts not converged: their start still weighs 82%") -> Unavailable:
    return Unavailable(kind="usage", layer="vq", source="checkpoint", reason=reason, hint="--data BATCH")


def a_crash() -> Outcome:
    return Outcome(code="VQ101", layer="vq", status="crashed", reason="ValueError: boom")
