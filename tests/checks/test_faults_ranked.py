"""Measured faults, end to end through the checks and the ranking: is the cause what comes first?

The numbers are those of a Conv2d-VQ classifier trained on the 8x8 digits (K = 256 unless said, D = 64,
16 positions, 25 epochs of 22 batches), one run an fault.
The gradient path, the codebook's owner and the codebook's geometry were not measured: they follow from
how each model is built. Of dead-codes the usage is made up (active share 0.2, perplexity about 120): the
measured run ended at 0.03 and 27, which is a collapse.
"""

from __future__ import annotations

from typing import Any

import pytest

from vqdoctor.checks import all_checks
from vqdoctor.checks._usage import COLLAPSED_USAGE, EMA_USAGE
from vqdoctor.core.evidence import (
    CodebookGeometry,
    CodebookGradient,
    DataMatch,
    EmaState,
    Evidence,
    GradientPath,
    LossBalance,
    NonFinite,
    OptimizerMemory,
    TaskGradient,
    TrainingRecord,
    Usage,
)
from vqdoctor.core.finding import Finding
from vqdoctor.core.levels import Severity
from vqdoctor.engine.evaluate import evaluate
from vqdoctor.engine.rank import rank


def patient(
    mem: float, bal: float, weight: float, perplexity: float, active: float, off: float, qe: float,
    scale: float, near: float, *, k: int = 256, decay: float = 0.99, ema: float = 0.0, cut: bool = False,
) -> dict[str, list[Evidence]]:  # fmt: skip
    """Evidence of a model trained for 550 updates: what the file tells, and what the data adds."""
    used = round(active * k)
    measured: dict[str, Any] = {
        "num_codes": k, "used": used, "active": used, "share": active, "expected_used": float(k),
        "expected_active": float(k),
    }  # fmt: skip
    spread = {"perplexity": perplexity, "perplexity_low": perplexity, "perplexity_high": perplexity}
    counts = {"perplexity": ema, "perplexity_low": ema, "perplexity_high": ema}
    start = decay**550
    file: list[Evidence] = [
        OptimizerMemory.healthy(ratio=mem),
        TrainingRecord.healthy(vq_weight=weight, decay=decay, updates=550, epochs=25),
        EmaState.healthy(decay=decay, updates=550, start_weight=start),
        CodebookGeometry.healthy(sample_size=k),
    ]
    if start < 0.05:
        file.append(EMA_USAGE.replace(**measured, **counts))
    data: list[Evidence] = [
        Usage.healthy(**measured, **spread, effective_size=28_752.0),
        DataMatch.healthy(mean_offset=off, quantization_error=qe, scale_ratio=scale, nearest_data=near),
        LossBalance.healthy(vq_weight=weight, ratio=None if cut else bal),
        CodebookGradient.healthy(),
        GradientPath.healthy(estimator="none", ratio=0.0, cosine=None) if cut else GradientPath.healthy(),
        TaskGradient.healthy(at_input=0.0, ratio=0.0) if cut else TaskGradient.healthy(),
    ]
    return {"bare": file, "data": file + data}


PATIENTS = {
    "no-ste": patient(0.0153, 0.0, 0.1, 1.0, 1 / 256, 21.1, 1.01, 0.116, 158.0, ema=1.01, cut=True),
    "no-ste, codebook from data": patient(
        0.00113, 0.0, 0.1, 117.0, 0.523, 0.104, 0.0093, 0.927, 0.061, ema=119.0, cut=True
    ),
    "overweighted": patient(15.3, 0.874, 100.0, 1.0, 1 / 256, 10.5, 1.03, 0.119, 77.4, ema=1.01),
    "overweighted, codebook from data": patient(
        13.3, 0.147, 100.0, 118.0, 0.664, 0.0934, 0.0893, 1.1, 0.15, ema=128.0
    ),
    "stalled-ema": patient(6.08, 0.0242, 0.1, 3.13, 0.0391, 0.222, 0.521, 1.81, 0.556, decay=0.9999),
    "dead-codes": patient(5.42, 0.0079, 0.1, 121.0, 0.2, 0.37, 0.209, 5.98, 0.216, k=1024, ema=118.0),
    "no weight at all": patient(3.21, 0.0, 0.0, 14.2, 0.0664, 0.556, 0.295, 5.05, 0.169, ema=11.7),
    "healthy": patient(5.1, 0.0037, 0.1, 189.0, 0.938, 0.0723, 0.0917, 1.21, 0.119, ema=213.0),
    "healthy, 512": patient(4.68, 0.0034, 0.1, 396.0, 0.947, 0.061, 0.067, 1.12, 0.113, k=512, ema=431.0),
}


def examine(evidence: list[Evidence]) -> tuple[Finding, ...]:
    judgement = evaluate(all_checks(), ["vq"], evidence, [])
    assert [outcome for outcome in judgement.outcomes if outcome.status == "crashed"] == []
    return rank(judgement.findings, all_checks())


@pytest.mark.parametrize("known", ["bare", "data"])
@pytest.mark.parametrize(
    ("name", "first", "severity"),
    [
        ("no-ste", "VQ101", Severity.ERROR),
        ("no-ste, codebook from data", "VQ101", Severity.ERROR),
        ("overweighted", "VQ201", Severity.ERROR),
        ("overweighted, codebook from data", "VQ201", Severity.WARNING),
        ("stalled-ema", "VQ302", Severity.ERROR),
        ("dead-codes", "VQ502", Severity.ERROR),
    ],
)
def test_the_cause_comes_first_and_is_the_only_root(
    name: str, first: str, severity: Severity, known: str
) -> None:
    findings = examine(PATIENTS[name][known])
    assert (findings[0].code, findings[0].severity) == (first, severity)
    roots = [f.code for f in findings if f.explained_by is None and f.severity > Severity.NOTE]
    assert roots == [first]


def test_a_loss_too_light_is_told_by_the_gradients_only() -> None:
    assert examine(PATIENTS["no weight at all"]["data"])[0].code == "VQ202"
    assert examine(PATIENTS["no weight at all"]["bare"])[0].code == "VQ501"


@pytest.mark.parametrize("known", ["bare", "data"])
@pytest.mark.parametrize("name", ["healthy", "healthy, 512"])
def test_healthy_models_get_nothing(name: str, known: str) -> None:
    assert examine(PATIENTS[name][known]) == ()


def test_a_non_finite_codebook_explains_whatever_else_is_found() -> None:
    broken = NonFinite.healthy(tensors=("vq.embedding",), tensor_count=1, nan=3)
    findings = examine([broken, COLLAPSED_USAGE])
    assert findings[0].code == "VQ901"
    assert {f.explained_by for f in findings[1:]} == {"VQ901:vq"}
