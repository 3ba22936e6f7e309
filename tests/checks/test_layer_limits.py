"""The checks of a layer's own work just inside and just outside their limits."""

from __future__ import annotations

import pytest
from judged import problems, says

from vqdoctor.checks import _specimens as healthy
from vqdoctor.checks import all_checks
from vqdoctor.core.evidence import Evidence
from vqdoctor.core.levels import Confidence
from vqdoctor.engine.evaluate import evaluate
from vqdoctor.engine.rank import rank

CHECKS = {check.code: check for check in all_checks()}
WRITERS, CUT, LEVEL = healthy.CODEBOOK_WRITERS, healthy.FLATTENING, healthy.RESIDUAL_LEVEL
HEALTH, PRECISION = healthy.GRADIENT_HEALTH, healthy.LOOKUP_PRECISION
TERMS, USE, BALANCE = healthy.LOSS_TERMS, healthy.LOSS_USE, healthy.LOSS_BALANCE
MEMORY = healthy.OPTIMIZER_MEMORY.replace(codebook_listed=True, codebook_has_state=True)
TRAINED = WRITERS.replace(gradient=0.1, sample_size=200)
STORED = PRECISION.replace(
    source="checkpoint", dtype="bfloat16", agreement=None, used=None, used_in_full=None, sample_size=256
)
SWAPPED = TERMS.replace(commitment=1.0, codebook=0.25)
POOR, EMA = healthy.COLLAPSED_USAGE, healthy.EMA_STATE
NO_BETA = {"beta": None, "beta_from": ""}
NO_LOSS = {"offered": 0.0, "used": None}


@pytest.mark.parametrize(
    ("code", "evidence", "expected"),
    [
        # VQ104: only a gradient that the optimizer may use makes a second writer
        ("VQ104", [TRAINED.replace(kept=0.91)], "passes"),
        ("VQ104", [TRAINED.replace(kept=0.89)], "warning"),
        ("VQ104", [TRAINED.replace(kept=0.0, listed=False)], "passes"),
        ("VQ104", [WRITERS.replace(listed=True)], "passes"),
        ("VQ104", [WRITERS.replace(replaced=True)], "passes"),
        ("VQ104", [WRITERS.replace(replaced=True, listed=True)], "note"),
        ("VQ104", [TRAINED.replace(replaced=True, kept=1.0)], "warning"),
        ("VQ104", [MEMORY, EMA.replace(sums_disagreement=0.009)], "warning"),
        ("VQ104", [MEMORY, EMA.replace(sums_disagreement=0.011)], "passes"),
        ("VQ104", [MEMORY, EMA.replace(sums_disagreement=0.0, never_written=True)], "cannot judge"),
        ("VQ104", [MEMORY, EMA.replace(sums_disagreement=None)], "cannot judge"),
        ("VQ104", [MEMORY], "cannot judge"),
        ("VQ104", [MEMORY.replace(codebook_has_state=False), EMA], "passes"),
        ("VQ104", [WRITERS, MEMORY, EMA.replace(sums_disagreement=0.0)], "passes"),
        # VQ105: a layer that mixes positions on purpose follows neither positions nor strips
        ("VQ105", [CUT.replace(equal=0.91, equal_as_stored=1.0)], "passes"),
        ("VQ105", [CUT.replace(equal=0.89, equal_as_stored=1.0)], "error"),
        ("VQ105", [CUT.replace(equal=0.1, equal_as_stored=0.2)], "cannot judge"),
        ("VQ105", [CUT.replace(equal=0.1, equal_as_stored=None)], "cannot judge"),
        ("VQ105", [CUT.replace(equal=0.1, equal_as_stored=1.0, by_chance=0.81)], "cannot judge"),
        ("VQ105", [CUT.replace(positions=1, equal=None, by_chance=None, input_runs=None)], "cannot judge"),
        ("VQ105", [CUT.replace(positions=1, equal=None, by_chance=None, input_runs=True)], "error"),
        # VQ106: published codecs are cut off from level 2 on, and work
        ("VQ106", [LEVEL.replace(reach=0.009)], "note"),
        ("VQ106", [LEVEL.replace(reach=0.009), POOR], "warning"),
        ("VQ106", [LEVEL.replace(reach=0.011), POOR], "passes"),
        ("VQ106", [LEVEL.replace(level=1, gain=10.0)], "note"),
        ("VQ106", [LEVEL.replace(level=1, gain=9.9)], "passes"),
        ("VQ106", [LEVEL.replace(level=2, gain=32.0)], "passes"),
        ("VQ106", [LEVEL.replace(level=1, gain=None)], "passes"),
        # VQ107
        ("VQ107", [HEALTH.replace(broken=1)], "error"),
        ("VQ107", [HEALTH.replace(broken_input=1)], "error"),
        ("VQ107", [HEALTH.replace(worst_gain=1001.0, spikes=1, spike_share=0.51)], "warning"),
        ("VQ107", [HEALTH.replace(worst_gain=999.0, spikes=1, spike_share=0.51)], "passes"),
        ("VQ107", [HEALTH.replace(worst_gain=1e6, spikes=1, spike_share=0.49)], "passes"),
        # VQ108
        ("VQ108", [PRECISION.replace(agreement=0.51)], "passes"),
        ("VQ108", [PRECISION.replace(agreement=0.49)], "warning"),
        ("VQ108", [STORED.replace(blurred_rows=128)], "passes"),
        ("VQ108", [STORED.replace(blurred_rows=129)], "warning"),
        # VQ203: the terms are told from their ratio, whatever their common factor
        ("VQ203", [SWAPPED], "warning"),
        ("VQ203", [SWAPPED.replace(commitment=64.0, codebook=16.0)], "warning"),
        ("VQ203", [TERMS.replace(commitment=1.0, codebook=1.0)], "passes"),
        ("VQ203", [SWAPPED.replace(beta=1.0)], "passes"),
        ("VQ203", [SWAPPED.replace(beta=0.0)], "passes"),
        ("VQ203", [SWAPPED.replace(legacy=True)], "passes"),
        ("VQ203", [SWAPPED.replace(legacy=True), POOR], "warning"),
        ("VQ203", [SWAPPED.replace(**NO_BETA)], "cannot judge"),
        ("VQ203", [SWAPPED.replace(**NO_BETA), POOR], "warning"),
        ("VQ203", [TERMS.replace(**NO_BETA), POOR], "passes"),
        ("VQ203", [TERMS.replace(codebook=None)], "cannot judge"),
        # VQ204: a sum, and it outweighs the task
        ("VQ204", [TERMS.replace(commitment=16.0), BALANCE.replace(ratio=0.81)], "warning"),
        ("VQ204", [TERMS.replace(commitment=16.0), BALANCE.replace(ratio=0.79)], "passes"),
        ("VQ204", [TERMS.replace(commitment=16.0), BALANCE.replace(ratio=None)], "cannot judge"),
        ("VQ204", [TERMS.replace(commitment=7.9), BALANCE.replace(ratio=9.0)], "passes"),
        ("VQ204", [TERMS.replace(commitment=16.0 * 400), BALANCE.replace(ratio=9.0)], "warning"),
        ("VQ204", [TERMS.replace(commitment=1.0, dim=4), BALANCE.replace(ratio=9.0)], "passes"),
        ("VQ204", [TERMS.replace(commitment=None), BALANCE.replace(ratio=9.0)], "cannot judge"),
        ("VQ204", [TERMS.replace(commitment=16.0, **NO_BETA), BALANCE.replace(ratio=9.0)], "warning"),
        # VQ205
        ("VQ205", [USE.replace(vq_weight=None)], "passes"),
        ("VQ205", [USE.replace(vq_weight=0.0)], "warning"),
        ("VQ205", [USE.replace(vq_weight=1e-6)], "passes"),
        ("VQ205", [USE.replace(used=False)], "passes"),
        ("VQ205", [USE.replace(used=False, gradient=0.0)], "warning"),
        ("VQ205", [USE.replace(used=True, reported=None, gradient=None)], "passes"),
        ("VQ205", [USE.replace(**NO_LOSS, reported=0.0, gradient=0.0)], "passes"),
        ("VQ205", [USE.replace(**NO_LOSS, vq_weight=0.0, gradient=None, reported=None)], "passes"),
    ],
)  # fmt: skip
def test_limits(code: str, evidence: list[Evidence], expected: str) -> None:
    assert says(code, *evidence) == expected


def test_what_is_known_for_sure_is_said_so() -> None:
    def confidence(code: str, *evidence: Evidence) -> Confidence:
        return problems(code, *evidence)[0].confidence

    fought = TRAINED.replace(kept=0.0)
    assert confidence("VQ104", fought.replace(listed=True)) is Confidence.HIGH
    assert confidence("VQ104", fought) is Confidence.MEDIUM
    assert confidence("VQ203", SWAPPED) is Confidence.HIGH
    assert confidence("VQ203", SWAPPED.replace(beta_from="layer")) is Confidence.MEDIUM
    assert confidence("VQ203", SWAPPED.replace(**NO_BETA), POOR) is Confidence.LOW


@pytest.mark.parametrize(
    ("cause", "code"),
    [
        (CUT.replace(equal=0.1, equal_as_stored=1.0), "VQ105"),
        (HEALTH.replace(broken=5), "VQ107"),
        (PRECISION.replace(agreement=0.15, dtype="bfloat16"), "VQ108"),
        (LEVEL.replace(reach=0.0), "VQ106"),
        (TRAINED.replace(kept=0.0, listed=True), "VQ104"),
        (SWAPPED, "VQ203"),
        (USE.replace(vq_weight=0.0), "VQ205"),
    ],
)
def test_a_collapse_hangs_under_the_cause_that_was_found(cause: Evidence, code: str) -> None:
    findings = rank(evaluate(all_checks(), ["vq"], [cause, POOR], []).findings, all_checks())
    assert (findings[0].code, findings[0].explained_by, findings[0].severity.label) == (code, None, "error")
    assert {f.explained_by for f in findings[1:]} == {f"{code}:vq"}


def test_a_weight_too_heavy_is_a_symptom_of_the_sum() -> None:
    heavy = [TERMS.replace(commitment=16.0), BALANCE.replace(vq_weight=1.0, ratio=35.0)]
    findings = rank(evaluate(all_checks(), ["vq"], heavy, []).findings, all_checks())
    assert [(f.code, f.explained_by) for f in findings] == [("VQ204", None), ("VQ201", "VQ204:vq")]
