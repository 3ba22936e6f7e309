"""Hand-made reports: what an engine could say, and what a hostile file would like to see on a terminal."""

from __future__ import annotations

from dataclasses import replace

import pytest

from vqdoctor.core.evidence import InputSummary, TaskMetrics, TrainingRecord, Unavailable, Usage
from vqdoctor.core.finding import Finding, Measurement, Outcome
from vqdoctor.core.gate import Gate, Judgement
from vqdoctor.core.levels import Confidence, Severity, Stage
from vqdoctor.core.report import Candidate, CheckpointSummary, LayerSummary, PlanStep, Report

HOSTILE = (
    "\x1b[2J[bold]k\x9b31m\u202eevil`|<script>@all\n# head\r\x07 \ud800 [link=http://x.y]www.z.org[/link]"
)

FILE = CheckpointSummary(
    path="sample_checkpoints/no-ste.pt",
    fingerprint="3f2a9c0011223344556677",
    sha256=None,
    container="torch-zip",
    bytes=361_376,
)
LAYER = LayerSummary(name="vq", layout="conv2d-vq", layout_confidence="high", num_codes=256, dim=64)


def usage(**changes: object) -> Usage:
    values: dict[str, object] = {
        "layer": "vq",
        "source": "batch",
        "sample_size": 28_752,
        "num_codes": 256,
        "used": 251,
        "active": 232,
        "expected_used": 256.0,
        "expected_active": 256.0,
        "share": 0.98,
        "perplexity": 171.3,
        "perplexity_low": 166.9,
        "perplexity_high": 175.8,
        "plug_in_perplexity": 170.1,
        "estimator": "grassberger",
        "max_share": 0.03,
        "count_quantiles": tuple(float(round(i**2.2 / 20)) for i in range(33)),
    }
    return Usage(**{**values, **changes})  # type: ignore[arg-type]


COLLAPSED_USAGE = usage(
    used=1,
    active=1,
    share=1 / 256,
    perplexity=1.0,
    perplexity_low=1.0,
    perplexity_high=1.0,
    plug_in_perplexity=1.0,
    max_share=1.0,
    count_quantiles=(0.0,) * 32 + (28_752.0,),
)


def finding(code: str, name: str, message: str, **changes: object) -> Finding:
    values: dict[str, object] = {
        "code": code,
        "name": name,
        "message": message,
        "stage": Stage(int(code[2])),
        "severity": Severity.ERROR,
        "confidence": Confidence.HIGH,
        "layer": "vq",
    }
    return Finding(**{**values, **changes})  # type: ignore[arg-type]


def outcome(code: str, status: str, reason: str | None = None, layer: str | None = "vq") -> Outcome:
    return Outcome(code=code, layer=layer, status=status, reason=reason)  # type: ignore[arg-type]


def judgement(metric: str, status: str, **changes: object) -> Judgement:
    values: dict[str, object] = {
        "metric": metric,
        "status": status,
        "layer": "vq",
        "relation": ">=",
        "threshold": 50.0,
        "value": 1.0,
        "low": 1.0,
        "high": 1.0,
        "level": "error",
        "reason": f"{metric} is 1.0 [1.0–1.0], batch of 28,752 vectors.",
    }
    return Judgement(**{**values, **changes})  # type: ignore[arg-type]


def report(**changes: object) -> Report:
    values: dict[str, object] = {
        "version": "0.1.0",
        "checkpoint": FILE,
        "layers": (LAYER,),
        "evidence": (),
        "unavailable": (),
        "outcomes": (),
        "findings": (),
        "plan": (),
        "verdict": "healthy",
    }
    return Report(**{**values, **changes})  # type: ignore[arg-type]


def collapsed() -> Report:
    """The no-ste sample with its data."""
    return report(
        verdict="collapsed",
        evidence=(
            TrainingRecord(
                source="checkpoint",
                sample_size=4,
                vq_weight=0.1,
                decay=0.99,
                epochs=20,
                updates=1_400,
                learning_rate=0.001,
                task="conv2d-vq/digits",
            ),
            InputSummary(
                source="batch",
                sample_size=1_797,
                name="x",
                shape=(1_797, 1, 8, 8),
                minimum=0.0,
                maximum=1.0,
                mean=0.3053,
                std=0.3761,
                labels=10,
            ),
            TaskMetrics(
                source="batch",
                sample_size=397,
                split="val",
                accuracy=0.0806,
                bypass_accuracy=0.93,
                chance_accuracy=0.1033,
                ece=0.021,
                loss=2.31,
                bypass_loss=0.4,
                shuffled_loss=2.31,
                mean_code_loss=2.31,
            ),
            usage(
                source="checkpoint",
                sample_size=1_152,
                window=199.0,
                estimator="ema-counts",
                used=1,
                active=1,
                perplexity=1.0,
                perplexity_low=1.0,
                perplexity_high=1.0,
            ),
            COLLAPSED_USAGE,
        ),
        findings=(
            finding(
                "VQ101",
                "straight-through-missing",
                "The VQ layer passes 0 % of the gradient back: the "
                "straight-through estimator is missing, so the task cannot train the encoder.",
                rank=1,
                measurements=(Measurement(name="gradient_ratio", value=0.0, limit=0.001),),
                remedies=("straight-through",),
            ),
            finding(
                "VQ501",
                "codebook-collapse",
                "Perplexity is 1.0 of 256.",
                rank=2,
                explained_by="VQ101:vq",
                remedies=("revive-dead-codes",),
                measurements=(
                    Measurement(name="perplexity", value=1.0, limit=51.2, unit="codes"),
                    Measurement(name="used", value=1, unit="codes"),
                ),
            ),
            finding(
                "VQ502",
                "dead-codes",
                "Only 1 of 256 codes is active.",
                rank=3,
                explained_by="VQ101:vq",
                measurements=(Measurement(name="active_share", value=0.0039, limit=0.3),),
            ),
            finding(
                "VQ301",
                "codebook-far-from-data",
                "The codebook does not lie where z_e lies.",
                rank=4,
                severity=Severity.WARNING,
                confidence=Confidence.MEDIUM,
                remedies=("data-init",),
                decide_with="--data batch.npz",
                measurements=(Measurement(name="nearest_data", value=0.300004, limit=0.3),),
            ),
            finding(
                "VQ903",
                "no-optimizer-state",
                "The file has no optimizer state.",
                rank=5,
                layer=None,
                severity=Severity.NOTE,
            ),
        ),
        plan=(
            PlanStep(
                step=1,
                remedy="straight-through",
                codes=("VQ101",),
                code="z_q = z_e + (z_q - z_e).detach()",
                how="Let the gradient at z_q pass to z_e unchanged, as the last step of the VQ layer.",
            ),
            PlanStep(
                step=2,
                remedy="data-init",
                codes=("VQ301",),
                code="codebook.copy_(kmeans(z_e, K))",
                how="Start the codebook from k-means centres of real encoder outputs.",
            ),
        ),
        outcomes=(
            outcome("VQ101", "found"),
            outcome("VQ501", "found"),
            outcome("VQ102", "passed"),
            outcome("VQ201", "skipped", "meaningless after VQ101 (straight-through-missing)"),
        ),
        unavailable=(
            Unavailable(
                kind="position-information",
                layer="vq",
                source="batch",
                reason="the model has no labels",
                hint="--data with y",
            ),
        ),
    )


def healthy() -> Report:
    """A healthy file, bare."""
    no_data = {"source": "batch", "reason": "no data was given", "hint": "--data BATCH"}
    return report(
        evidence=(usage(source="checkpoint", estimator="ema-counts", window=199.0, sample_size=1_152),),
        outcomes=(outcome("VQ501", "passed"), outcome("VQ201", "skipped", "no data was given")),
        unavailable=tuple(
            Unavailable(kind=kind, layer=layer, **no_data)  # type: ignore[arg-type]
            for kind in ("gradient-path", "loss-balance")
            for layer in ("vq", "vq2")
        ),
    )


def at_risk() -> Report:
    """Two layers, one of them a guess and unknown; a model-wide cause."""
    cause = finding(
        "VQ302",
        "ema-not-converged",
        "The EMA statistics are still 0.9 start values.",
        layer=None,
        severity=Severity.WARNING,
        rank=1,
        remedies=("faster-ema",),
    )
    symptom = finding(
        "VQ503",
        "duplicate-codes",
        "12 codes are copies.",
        severity=Severity.WARNING,
        rank=2,
        explained_by="VQ302:",
        layer="rvq.layers.1",
    )
    guess = LayerSummary(
        name="rvq.layers.1", layout="embedding", layout_confidence="low", num_codes=512, dim=32
    )
    return report(
        verdict="at-risk",
        layers=(LAYER, guess),
        evidence=(usage(),),
        findings=(cause, symptom),
        plan=(
            PlanStep(
                step=1,
                remedy="faster-ema",
                codes=("VQ302",),
                how="Lower the decay.",
                code="vqdoctor fix ckpt.pt",
            ),
        ),
        unavailable=(
            Unavailable(
                kind="usage",
                layer="rvq.layers.1",
                source="checkpoint",
                reason="the EMA has not converged",
                hint="--data BATCH",
            ),
        ),
        outcomes=(outcome("VQ302", "found", layer=None), outcome("VQ503", "found", layer="rvq.layers.1")),
    )


def inconclusive() -> Report:
    """A file without any VQ layer."""
    return report(
        verdict="inconclusive",
        layers=(),
        candidates=(
            Candidate(key="token_embedding.weight", shape=(32_000, 512), why="no token of a VQ layer"),
        ),
        notes=("2 sparse tensors were skipped",),
        outcomes=(outcome("VQ501", "skipped", "no VQ layer was found", layer=None),),
    )


def incomplete() -> Report:
    """A healthy file of which one check crashed."""
    return report(
        evidence=(usage(),),
        outcomes=(outcome("VQ503", "crashed", "ValueError: negative norm"), outcome("VQ501", "passed")),
    )


def hostile() -> Report:
    """Every string that a file can choose, chosen by an enemy."""
    layer = LayerSummary(name=HOSTILE, layout=HOSTILE, layout_confidence="low", num_codes=256, dim=64)
    bad = finding(
        "VQ902",
        "foreign-objects-in-file",
        f"The file would run {HOSTILE}.",
        rank=1,
        layer=HOSTILE,
        remedies=("save-plain-state-dict",),
        decide_with=HOSTILE,
    )
    return report(
        verdict="at-risk",
        layers=(layer,),
        findings=(bad,),
        notes=(HOSTILE,),
        checkpoint=CheckpointSummary(
            path=HOSTILE, fingerprint="0", sha256=None, container="torch-zip", bytes=1
        ),
        candidates=(Candidate(key=HOSTILE, shape=(1, 2), why=HOSTILE),),
        unavailable=(
            Unavailable(kind="usage", layer=HOSTILE, source="checkpoint", reason=HOSTILE, hint=HOSTILE),
        ),
        evidence=(TrainingRecord(source="checkpoint", sample_size=1, task=HOSTILE),),
        outcomes=(outcome("VQ902", "found"), outcome("VQ503", "crashed", HOSTILE, layer=HOSTILE)),
    )


def gate_passed() -> Report:
    """A healthy file whose assertions hold, but for one that only warns and one that was known before."""
    shy = judgement("usage", "fail", level="warn", threshold=0.4, value=0.31, low=0.3, high=0.32)
    known = judgement(
        "ece", "fail", layer=None, relation="<=", threshold=0.05, value=0.2, low=None, high=None
    )
    judgements = (judgement("perplexity", "pass", value=171.3, low=166.9, high=175.8), shy, known)
    return replace(healthy(), gate=Gate(status="pass", judgements=judgements, hidden=("gate/ece:",)))


def gate_failed() -> Report:
    """The no-ste sample with its data: an assertion and two findings fail it, one finding is known."""
    gate = Gate(
        status="fail",
        judgements=(judgement("perplexity", "fail"), judgement("dead", "pass", relation="<=", value=0.0)),
        hidden=("VQ502:vq",),
        failing=("VQ101:vq", "VQ501:vq"),
    )
    return replace(collapsed(), gate=gate)


def gate_inconclusive() -> Report:
    """Too few vectors for one assertion; another is not known at all."""
    judgements = (
        judgement("perplexity", "inconclusive", value=61.0, low=40.2, high=88.0),
        judgement("accuracy", "inconclusive", layer=None, threshold=0.5, value=None, low=None, high=None),
    )
    return replace(healthy(), gate=Gate(status="inconclusive", judgements=judgements))


def gate_hostile() -> Report:
    """A gate over every string that a file can choose, chosen by an enemy."""
    bad = judgement("perplexity", "fail", layer=HOSTILE, reason=HOSTILE)
    gate = Gate(status="fail", judgements=(bad,), hidden=(f"VQ902:{HOSTILE}",), failing=(f"VQ101:{HOSTILE}",))
    return replace(hostile(), gate=gate)


def unexplained() -> Report:
    """A collapse whose cause was not found; gradient flow is ruled out; a lesser problem stands beside."""
    collapse = finding(
        "VQ501", "codebook-collapse", "Perplexity is 1.0.", rank=1, decide_with="--probe-steps 20"
    )
    symptom = finding("VQ502", "dead-codes", "1 code is active.", rank=2, explained_by="VQ501:vq")
    lesser = finding("VQ401", "too-few-updates", "200 updates.", rank=3, severity=Severity.WARNING)
    return report(
        verdict="collapsed",
        evidence=(COLLAPSED_USAGE,),
        findings=(collapse, symptom, lesser),
        outcomes=(
            *(outcome(f.code, "found") for f in (collapse, symptom, lesser)),
            outcome("VQ101", "passed"),
            outcome("VQ102", "passed", layer="other"),
            outcome("VQ201", "skipped", "no data was given"),
            outcome("VQ503", "passed"),
        ),
    )


def levels() -> Report:
    """Four levels of one stack with the same finding; two of them have a symptom."""
    names = [f"rvq.layers.{i}" for i in range(4)]
    found = []
    for name, weight in zip(names, (0.1, 0.3, 0.9, 0.2), strict=True):
        start = Measurement(name="start_weight", value=weight, limit=0.05)
        of: dict[str, object] = {"layer": name, "measurements": (start,)}
        found.append(finding("VQ302", "ema-not-converged", f"it is {weight}.", rank=len(found) + 1, **of))
        if name in (names[1], names[3]):
            cause = f"VQ302:{name}"
            of = {"layer": name, "explained_by": cause, "rank": len(found) + 1}
            found.append(finding("VQ501", "codebook-collapse", "It collapsed.", **of))
    return report(
        verdict="collapsed",
        layers=tuple(replace(LAYER, name=name) for name in names),
        evidence=tuple(usage(layer=name) for name in names),
        findings=tuple(found),
        outcomes=tuple(outcome(f.code, "found", layer=f.layer) for f in found),
    )


PLAIN = (collapsed, healthy, at_risk, inconclusive, incomplete, hostile, unexplained, levels)
GATED = (gate_passed, gate_failed, gate_inconclusive, gate_hostile)
MAKERS = (*PLAIN, *GATED)


@pytest.fixture
def reports() -> dict[str, Report]:
    """All hand-made reports by name."""
    return {make.__name__: make() for make in MAKERS}


@pytest.fixture
def hostile_text() -> str:
    """The string that the hostile report is full of."""
    return HOSTILE
