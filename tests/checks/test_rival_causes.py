"""Causes that look alike: each beside a twin that differs in one piece of evidence, and is named otherwise.

The evidence is hand-made, in the sizes that small models with other people's quantizers measured.
"""

from __future__ import annotations

import pytest
from judged import problems, says

from vqdoctor.checks import all_checks
from vqdoctor.checks._usage import COLLAPSED_USAGE, EMA_USAGE
from vqdoctor.core.evidence import (
    CodebookGeometry,
    CodebookGradient,
    CodebookWriters,
    CodeExpiry,
    DataMatch,
    EmaRelation,
    EmaState,
    EvalForward,
    Evidence,
    Flattening,
    GradientHealth,
    GradientPath,
    Initialisation,
    LevelUse,
    LookupPrecision,
    LookupScale,
    LossBalance,
    LossTerms,
    LossUse,
    ResidualLevel,
    Trace,
    TrainEvalGap,
    Usage,
)
from vqdoctor.engine.evaluate import evaluate
from vqdoctor.engine.rank import rank

UNMOVED = CodebookGradient.healthy(trainable=True, ema_owned=False)
NOT_ADDED = LossUse.healthy(used=False, reported=None, gradient=None)
LEFT_OUT = LevelUse.healthy(written=False, others_written=2)
UNSTARTED = LevelUse.healthy(written=False, others_written=0)
TO_COME = Initialisation.healthy(flag=False, counts_written=False)
IN_EVAL = EvalForward.healthy(changed=("vq.embed",), changed_count=1, codebook=True)
MISFIT = DataMatch.healthy(quantization_error=2.1)
FEW = Usage.healthy(
    used=40, active=37, share=0.16, perplexity=28.0, perplexity_low=27.0, perplexity_high=29.0
)
COPIES = CodebookGeometry.healthy(duplicate_rows=200)
RUNAWAY = DataMatch.healthy(
    dim=16, data_rms=1640.0, data_std=4530.0, codebook_rms=0.138, quantization_error=2.09,
    scale_ratio=11_900.0, nearest_data=0.055,
)  # fmt: skip


def first(*evidence: Evidence) -> tuple[str, str]:
    """Return the code of the first finding, and the experiment that it names."""
    checks = all_checks()
    found = rank(evaluate(checks, ["vq"], evidence, ()).findings, checks, evidence)
    return found[0].code, found[0].decide_with


# A collapse, and the one cause that was found.


@pytest.mark.parametrize(
    ("cause", "code"),
    [
        (Flattening.healthy(equal=0.1, equal_as_stored=1.0), "VQ105"),
        (GradientHealth.healthy(broken=5), "VQ107"),
        (LookupPrecision.healthy(agreement=0.15, dtype="bfloat16"), "VQ108"),
        (ResidualLevel.healthy(reach=0.0), "VQ106"),
        (CodebookWriters.healthy(gradient=0.1, sample_size=200, kept=0.0, listed=True), "VQ104"),
        (LossTerms.healthy(commitment=1.0, codebook=0.25), "VQ203"),
        (LossUse.healthy(vq_weight=0.0), "VQ205"),
    ],
)
def test_a_collapse_hangs_under_the_cause_that_was_found(cause: Evidence, code: str) -> None:
    findings = rank(evaluate(all_checks(), ["vq"], [cause, COLLAPSED_USAGE], []).findings, all_checks())
    assert (findings[0].code, findings[0].explained_by, findings[0].severity.label) == (code, None, "error")
    assert {f.explained_by for f in findings[1:]} == {f"{code}:vq"}


def test_a_heavy_pull_hangs_under_codes_that_are_far_too_long() -> None:
    heavy = LossBalance.healthy(vq_weight=0.25, ratio=53.5)
    shares = (EmaRelation.healthy(total=1.0), LookupScale.healthy(factor=1 / 452))
    found = rank(evaluate(all_checks(), ["vq"], [heavy, *shares], []).findings, all_checks())
    assert {f.code: f.explained_by for f in found} == {"VQ309": None, "VQ201": "VQ309:vq"}
    assert first(heavy)[0] == "VQ201"


# The codebook has no gradient: because its loss was never added, or although it was.


@pytest.mark.parametrize(
    ("use", "cause"),
    [
        (NOT_ADDED, "VQ205"),
        (LossUse.healthy(vq_weight=0.0), "VQ205"),
        (LossUse.healthy(), "VQ103"),
        # the task's own loss pulls, only not at the codebook
        (LossUse.healthy(used=False, gradient=0.01), "VQ103"),
    ],
)
def test_a_codebook_that_nothing_moves(use: Evidence, cause: str) -> None:
    assert first(UNMOVED, use, MISFIT, COLLAPSED_USAGE, GradientPath.healthy())[0] == cause


# A level that is not initialised: because the training leaves it out, or because nothing was trained.


@pytest.mark.parametrize(("level", "cause"), [(LEFT_OUT, "VQ506"), (UNSTARTED, "VQ306")])
def test_a_level_that_was_never_written(level: Evidence, cause: str) -> None:
    assert first(level, TO_COME, IN_EVAL)[0] == cause


def test_a_level_that_was_left_out_is_no_fault_of_its_start_or_of_eval_mode() -> None:
    assert says("VQ306", TO_COME, LEFT_OUT) == says("VQ307", IN_EVAL, LEFT_OUT) == "cannot judge"
    assert says("VQ306", TO_COME, UNSTARTED) == says("VQ307", IN_EVAL, UNSTARTED) == "error"
    assert says("VQ506", UNSTARTED) == "passes"


# Dead codes: because they are copies, or beside a few copies.


@pytest.mark.parametrize(("copies", "cause"), [(200, "VQ503"), (110, "VQ503"), (109, "VQ501"), (0, "VQ501")])
def test_dead_codes_with_copies_among_them(copies: int, cause: str) -> None:
    """219 of 256 codes are not active; copies explain it from half of these."""
    geometry = CodebookGeometry.healthy(duplicate_rows=copies)
    assert first(geometry, FEW, GradientPath.healthy()) == (cause, "--decide")


def test_copies_are_a_symptom_where_the_cause_of_a_collapse_is_known() -> None:
    cut = GradientPath.healthy(estimator="none", ratio=0.0, cosine=None)
    assert first(COPIES, FEW, cut) == ("VQ101", "")


def test_copies_without_known_usage_are_a_warning() -> None:
    assert says("VQ503", COPIES) == "warning"
    assert says("VQ503", CodebookGeometry.healthy(duplicate_rows=14), FEW) == "note"


# Codes that are replaced at every step: because the batch is small, or because they are dead.


@pytest.mark.parametrize(
    ("usage", "threshold", "says_what"),
    [
        (Usage.healthy(), None, "error"),
        (COLLAPSED_USAGE, None, "cannot judge"),
        # 400 vectors for 256 codes: fewer than two each, whatever the usage
        (COLLAPSED_USAGE, 2.0, "error"),
    ],
)
def test_codes_that_are_replaced(usage: Evidence, threshold: float | None, says_what: str) -> None:
    expiry = CodeExpiry.healthy(threshold=threshold, replaced=0.9)
    assert says("VQ402", expiry, usage) == says_what


# z_e far larger than the codes: because next to nothing holds it, or although something does.


@pytest.mark.parametrize(("ratio", "cause"), [(0.0103, "VQ202"), (20.0, "VQ201")])
def test_the_pull_of_a_runaway_is_that_at_the_codes(ratio: float, cause: str) -> None:
    """12,000 lengths away a weight of 0.00001 still pulls with a hundredth of the task."""
    balance = LossBalance.healthy(vq_weight=1e-5, ratio=ratio)
    assert first(RUNAWAY, balance, COLLAPSED_USAGE, GradientPath.healthy())[0] == cause


def test_codes_faded_to_zero_are_no_runaway() -> None:
    """They shrink the codebook as a runaway does, but z_e stands at the codes that are chosen."""
    match = DataMatch.healthy(scale_ratio=5.98, codebook_rms=0.27, quantization_error=0.21)
    assert problems("VQ202", match, LossBalance.healthy(ratio=0.0079)) == []


# Which experiment is left.


def test_a_collapse_without_a_known_cause_names_the_next_experiment() -> None:
    live = (COLLAPSED_USAGE, GradientPath.healthy())
    bare = EMA_USAGE.replace(active=1, perplexity=1.0, perplexity_low=1.0, perplexity_high=1.0)
    assert first(bare) == ("VQ501", "--task FILE.py:NAME --decide")
    assert first(*live) == ("VQ501", "--decide")
    steps = 20
    run: Trace = Trace.healthy(perplexity=(1.0,) * steps, z_e_rms=(1.0,) * steps, codebook_rms=(1.0,) * steps)
    assert first(*live, run)[1] == ""


def test_two_causes_of_one_collapse_name_the_experiment_and_either_alone_does_not() -> None:
    heavy = LossBalance.healthy(vq_weight=100.0, ratio=14.0)
    slow = EmaState.healthy(decay=0.9999, start_weight=0.95)
    beside = (COLLAPSED_USAGE, GradientPath.healthy())
    assert first(heavy, slow, *beside) == ("VQ201", "--decide")
    assert first(heavy, *beside) == ("VQ201", "")
    assert first(slow, *beside) == ("VQ302", "")


@pytest.mark.parametrize(
    ("modes", "balance", "cause"),
    [
        # running statistics that lag behind an encoder which the weight brings down
        (
            TrainEvalGap.healthy(agreement=0.3, explained=0.98, eval_loss=0.05),
            LossBalance.healthy(vq_weight=300.0, ratio=0.44),
            "VQ201",
        ),
        # noise before the layer, of which the VQ loss consists
        (TrainEvalGap.healthy(agreement=0.1, repeated=0.08), LossBalance.healthy(ratio=12.0), "VQ606"),
    ],
)
def test_a_gap_between_the_modes_explains_a_heavy_vq_loss_where_it_is_noise(
    modes: Evidence, balance: Evidence, cause: str
) -> None:
    assert first(modes, balance, COLLAPSED_USAGE)[0] == cause
    assert says("VQ201", balance) == says("VQ606", modes) == "warning"
