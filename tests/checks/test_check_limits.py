"""Each check just inside and just outside its limits, on evidence that departs from healthy specimens."""

from __future__ import annotations

import random

import pytest

from vqdoctor.checks import all_checks
from vqdoctor.checks._usage import COLLAPSED_USAGE, IMPLICIT_USAGE
from vqdoctor.core.check import CannotJudge
from vqdoctor.core.evidence import (
    CodebookGeometry,
    CodebookGradient,
    DataMatch,
    EmaState,
    EncoderSpread,
    Evidence,
    ForeignObjects,
    GradientPath,
    ImplicitLevels,
    LossBalance,
    NonFinite,
    OptimizerMemory,
    PositionInformation,
    TaskGradient,
    TaskMetrics,
    TrainingRecord,
    Usage,
)
from vqdoctor.core.finding import Problem
from vqdoctor.core.levels import Confidence, Severity

SPREAD = EncoderSpread.healthy()

CHECKS = {check.code: check for check in all_checks()}
GRADIENT, MEMORY = GradientPath.healthy(), OptimizerMemory.healthy()
TASK, CODEBOOK = TaskGradient.healthy(), CodebookGradient.healthy()
BALANCE, RECORD = LossBalance.healthy(), TrainingRecord.healthy()
MATCH, EMA, GEOMETRY = DataMatch.healthy(), EmaState.healthy(), CodebookGeometry.healthy()
POSITIONS, METRICS = PositionInformation.healthy(), TaskMetrics.healthy()


def problems(code: str, *evidence: Evidence) -> list[Problem]:
    return CHECKS[code].judge({type(item): item for item in evidence})


def says(code: str, *evidence: Evidence) -> str:
    """The severity of the one problem, "passes", or "cannot judge"."""
    try:
        found = problems(code, *evidence)
    except CannotJudge:
        return "cannot judge"
    assert len(found) <= 1
    return found[0].severity.label if found else "passes"


SATURATED = ImplicitLevels.healthy(used=(2, 2, 2), edge_share=(1.0, 1.0, 1.0))


def usage(k: int, n: float, perplexity: float, used: int, **more: object) -> Usage:
    """Usage of independent vectors, without an interval."""
    expected = k * (1 - (1 - 1 / k) ** n)
    values: dict[str, object] = {
        "num_codes": k, "sample_size": int(n), "used": used, "active": used, "share": used / k,
        "expected_used": expected, "expected_active": expected, "effective_size": float(n),
        "perplexity": perplexity, "perplexity_low": perplexity, "perplexity_high": perplexity,
    }  # fmt: skip
    return Usage.healthy(**{**values, **more})


@pytest.mark.parametrize(
    ("code", "evidence", "expected"),
    [
        # VQ201: the loss of a layer without a codebook asks for variety
        ("VQ201", [BALANCE.replace(ratio=38.0), Usage.healthy()], "warning"),
        ("VQ201", [BALANCE.replace(ratio=38.0), IMPLICIT_USAGE], "cannot judge"),
        # VQ501: half of the bits where nothing is stored, 5 % of K where a codebook is
        ("VQ501", [IMPLICIT_USAGE.replace(num_codes=4096, perplexity=65.0, perplexity_high=66.0)], "passes"),
        ("VQ501", [IMPLICIT_USAGE.replace(num_codes=4096, perplexity=62.0, perplexity_high=63.0)], "error"),
        (
            "VQ501",
            [IMPLICIT_USAGE.replace(num_codes=4096, perplexity=65.0, perplexity_high=66.0, implicit=False)],
            "error",
        ),
        ("VQ502", [IMPLICIT_USAGE.replace(active=2)], "cannot judge"),
        # VQ504: a channel that stays at one level
        ("VQ504", [ImplicitLevels.healthy(used=(8, 2, 5))], "passes"),
        ("VQ504", [ImplicitLevels.healthy(used=(8, 1, 5))], "warning"),
        # VQ101: legitimate estimators pass, whatever their length
        ("VQ101", [GRADIENT.replace(estimator="rotation", ratio=0.31, cosine=0.97)], "passes"),
        ("VQ101", [GRADIENT.replace(estimator="custom", ratio=0.63, cosine=0.91)], "passes"),
        ("VQ101", [GRADIENT.replace(estimator="custom", ratio=8.0, cosine=1.0)], "passes"),
        ("VQ101", [GRADIENT.replace(estimator="zero", ratio=0.0, cosine=None)], "error"),
        ("VQ101", [GRADIENT.replace(estimator="custom", ratio=0.0009)], "warning"),
        # … and where the levels are saturated, a tanh's end passes nothing, whatever the estimator
        ("VQ101", [GRADIENT.replace(estimator="zero", ratio=0.0), ImplicitLevels.healthy()], "error"),
        ("VQ101", [GRADIENT.replace(estimator="zero", ratio=0.0), SATURATED], "cannot judge"),
        ("VQ101", [GRADIENT.replace(estimator="none", ratio=0.0), SATURATED], "error"),
        ("VQ101", [GRADIENT.replace(estimator="custom", ratio=0.7, zero_share=0.6)], "warning"),
        ("VQ101", [MEMORY.replace(ratio=0.0153)], "error"),
        ("VQ101", [MEMORY.replace(ratio=1.2)], "passes"),
        ("VQ101", [MEMORY.replace(ratio=None)], "cannot judge"),
        ("VQ101", [OptimizerMemory(source="checkpoint", sample_size=0, parameters=0)], "cannot judge"),
        ("VQ101", [GRADIENT.replace(estimator="none", ratio=0.0), MEMORY], "error"),
        # VQ102: where the cut lies
        ("VQ102", [TASK.replace(at_output=0.0, at_input=0.0, ratio=None, before=0.0)], "error"),
        ("VQ102", [TASK.replace(at_input=0.0, ratio=0.0, before=0.0)], "error"),
        # a level of a residual stack with one outer estimator: the encoder does learn
        ("VQ102", [TASK.replace(at_input=0.0, ratio=0.0)], "passes"),
        ("VQ102", [TASK.replace(before=1e-12)], "error"),
        ("VQ102", [TASK.replace(before=1e-5)], "passes"),
        ("VQ102", [TASK.replace(at_output=None, at_input=0.0, after=0.0)], "cannot judge"),
        # VQ103
        ("VQ103", [CODEBOOK.replace(ema_owned=False)], "warning"),
        ("VQ103", [CODEBOOK.replace(ema_owned=False, trainable=True, gradient=1e-9)], "passes"),
        ("VQ103", [EMA], "passes"),
        ("VQ103", [MEMORY], "cannot judge"),
        ("VQ103", [MEMORY.replace(codebook_listed=True, codebook_has_state=True)], "passes"),
        (
            "VQ103",
            [MEMORY.replace(codebook_listed=True, codebook_has_state=False), EMA.replace(never_written=True)],
            "error",
        ),
        ("VQ103", [EMA.replace(never_written=True)], "cannot judge"),
        # VQ201: the weight that a file does not record is unknown, not one
        ("VQ201", [BALANCE.replace(ratio=10.1)], "warning"),
        ("VQ201", [BALANCE.replace(ratio=9.9)], "passes"),
        ("VQ201", [BALANCE.replace(vq_weight=10.0)], "passes"),
        ("VQ201", [BALANCE.replace(vq_weight=None, ratio=None)], "cannot judge"),
        ("VQ201", [BALANCE.replace(vq_weight=None, ratio=None), RECORD.replace(vq_weight=100.0)], "warning"),
        ("VQ201", [RECORD.replace(vq_weight=None)], "cannot judge"),
        ("VQ201", [RECORD.replace(commitment_weight=1000.0)], "warning"),
        ("VQ201", [BALANCE, RECORD.replace(vq_weight=100.0)], "passes"),
        # VQ202: size alone proves nothing
        ("VQ202", [MATCH.replace(scale_ratio=5.0)], "cannot judge"),
        ("VQ202", [MATCH], "passes"),
        ("VQ202", [MATCH.replace(scale_ratio=5.0), BALANCE.replace(ratio=0.0)], "warning"),
        ("VQ202", [MATCH.replace(scale_ratio=2.9), BALANCE.replace(ratio=0.0)], "passes"),
        # VQ301
        ("VQ301", [MATCH.replace(mean_offset=2.01)], "error"),
        ("VQ301", [MATCH.replace(mean_offset=1.99)], "passes"),
        ("VQ301", [MATCH.replace(quantization_error=1.01)], "error"),
        ("VQ301", [MATCH.replace(nearest_data=1.49)], "passes"),
        ("VQ301", [MATCH.replace(nearest_data=1.51)], "error"),
        # VQ302
        ("VQ302", [EMA.replace(start_weight=0.04)], "passes"),
        ("VQ302", [EMA.replace(start_weight=0.06)], "warning"),
        ("VQ302", [EMA.replace(start_weight=0.51)], "error"),
        ("VQ302", [EMA.replace(start_weight=None)], "cannot judge"),
        ("VQ302", [EMA.replace(never_written=True)], "cannot judge"),
        # VQ303, with a file saved before the first update
        ("VQ303", [EMA.replace(sums_disagreement=0.06)], "warning"),
        ("VQ303", [EMA.replace(sums_disagreement=0.04)], "passes"),
        ("VQ303", [EMA.replace(never_written=True, sums_disagreement=1.4)], "cannot judge"),
        ("VQ303", [EMA.replace(sums_disagreement=None, compared_rows=0)], "cannot judge"),
        # VQ304
        ("VQ304", [GEOMETRY.replace(oversized_rows=1), EMA.replace(zero_counts=1)], "warning"),
        ("VQ304", [GEOMETRY.replace(oversized_rows=1), EMA], "passes"),
        # VQ401: advice only where the usage is poor
        ("VQ401", [RECORD.replace(updates=99)], "warning"),
        ("VQ401", [RECORD.replace(updates=100)], "passes"),
        ("VQ401", [RECORD.replace(decay=1.0)], "warning"),
        ("VQ401", [RECORD.replace(decay=None), EMA.replace(decay=0.9999)], "warning"),
        ("VQ401", [RECORD.replace(epochs=None, updates=None)], "cannot judge"),
        ("VQ401", [RECORD, usage(256, 28_752, 80, 90)], "note"),
        ("VQ401", [RECORD, usage(256, 200, 1, 1)], "passes"),
        ("VQ401", [RECORD.replace(epochs=200), usage(256, 28_752, 1, 1)], "passes"),
        # VQ501: max(min(50, 0.2 K), 0.05 K)
        ("VQ501", [usage(256, 28_752, 49.9, 60)], "error"),
        ("VQ501", [usage(256, 28_752, 50.1, 60)], "passes"),
        ("VQ501", [usage(256, 28_752, 49.9, 60, perplexity_high=50.1)], "warning"),
        ("VQ501", [usage(64, 28_752, 12.9, 14)], "passes"),
        ("VQ501", [usage(64, 28_752, 12.7, 14)], "error"),
        ("VQ501", [usage(8192, 1e6, 409, 900)], "error"),
        ("VQ501", [usage(8192, 1e6, 410, 900)], "passes"),
        # a modem tone on a speech codec, and a deployed codec on four sample sizes
        ("VQ501", [usage(512, 5_767, 3.3, 8)], "error"),
        ("VQ501", [usage(512, 64, 45, 50)], "cannot judge"),
        ("VQ501", [usage(512, 256, 104, 132)], "passes"),
        ("VQ501", [usage(512, 4_096, 182, 415)], "passes"),
        # a tone is heard by an encoder that is alive, and silence by none
        ("VQ507", [SPREAD.replace(output_spread=0.4, input_rank=2.0), COLLAPSED_USAGE], "note"),
        ("VQ507", [SPREAD.replace(output_spread=0.0, input_rank=2.0), COLLAPSED_USAGE], "error"),
        ("VQ507", [SPREAD.replace(output_spread=0.0, input_spread=0.0), COLLAPSED_USAGE], "note"),
        # one code for 64 vectors is a collapse however small the sample
        ("VQ501", [usage(512, 64, 1, 1)], "error"),
        ("VQ501", [usage(512, 28_752, 20, 40, effective_size=300.0)], "error"),
        ("VQ501", [usage(512, 28_752, 40, 60, effective_size=300.0)], "cannot judge"),
        # EMA counts remember more than their sum
        (
            "VQ501",
            [usage(4096, 1_200, 150, 400, source="checkpoint", effective_size=None, window=9.0)],
            "error",
        ),
        (
            "VQ501",
            [usage(4096, 1_200, 150, 400, source="checkpoint", effective_size=None, window=1.0)],
            "cannot judge",
        ),
        # VQ502
        ("VQ502", [usage(1024, 40_000, 300, 420)], "passes"),
        ("VQ502", [usage(1024, 40_000, 250, 400)], "warning"),
        ("VQ502", [usage(1024, 40_000, 200, 300)], "error"),
        ("VQ502", [usage(1024, 28_752, 150, 280)], "error"),
        ("VQ502", [usage(1024, 2_000, 250, 300)], "cannot judge"),
        ("VQ502", [usage(512, 64, 45, 50)], "passes"),
        ("VQ502", [usage(512, 64, 1, 1)], "error"),
        ("VQ502", [usage(512, 5_767, 185, 431)], "passes"),
        ("VQ502", [usage(1024, 40_000, 200, 300, effective_size=3_000.0)], "cannot judge"),
        # VQ503
        ("VQ503", [GEOMETRY.replace(duplicate_rows=13)], "warning"),
        ("VQ503", [GEOMETRY.replace(duplicate_rows=12)], "passes"),
        ("VQ503", [GEOMETRY.replace(duplicate_rows=60, zero_rows=40)], "warning"),
        # VQ601: a small codebook in full use is no collapse; nor is a model that fails visibly
        ("VQ601", [POSITIONS.replace(code_information=0.9, code_entropy=1.6), Usage.healthy()], "error"),
        ("VQ601", [POSITIONS.replace(code_information=1.1, code_entropy=1.6), Usage.healthy()], "passes"),
        (
            "VQ601",
            [POSITIONS.replace(code_information=0.39, code_entropy=1.12), usage(4, 28_752, 3.8, 4)],
            "passes",
        ),
        (
            "VQ601",
            [POSITIONS.replace(code_information=0.6, code_entropy=1.6, pooled_accuracy=0.4), Usage.healthy()],
            "passes",
        ),
        (
            "VQ601",
            [POSITIONS.replace(code_information=0.6, code_entropy=1.6, code_accuracy=0.85), Usage.healthy()],
            "passes",
        ),
        ("VQ601", [POSITIONS.replace(positions=1), Usage.healthy()], "cannot judge"),
        # VQ602
        ("VQ602", [METRICS.replace(mean_code_accuracy=0.91)], "error"),
        ("VQ602", [METRICS.replace(mean_code_accuracy=0.90)], "passes"),
        ("VQ602", [METRICS.replace(accuracy=0.08, mean_code_accuracy=0.08)], "cannot judge"),
        ("VQ602", [METRICS.replace(accuracy=None, loss=0.1, mean_code_loss=0.102)], "passes"),
        ("VQ602", [METRICS.replace(accuracy=None, loss=-4.0, mean_code_loss=-4.0)], "cannot judge"),
        # VQ603: never more than a warning
        ("VQ603", [METRICS.replace(ece=0.9)], "warning"),
        ("VQ603", [METRICS.replace(ece=0.05)], "passes"),
        ("VQ603", [METRICS.replace(ece=0.2, sample_size=99)], "cannot judge"),
        ("VQ603", [METRICS.replace(ece=None)], "cannot judge"),
        # VQ9xx
        ("VQ901", [NonFinite.healthy(tensors=("a",), tensor_count=1, inf=1)], "error"),
        ("VQ902", [ForeignObjects.healthy(harmless=("a.B",), dangerous=("os.system",))], "error"),
        ("VQ903", [MEMORY.replace(layer=None)], "passes"),
    ],
)  # fmt: skip
def test_limits(code: str, evidence: list[Evidence], expected: str) -> None:
    assert says(code, *evidence) == expected


def test_a_guess_from_the_file_says_what_would_decide_it() -> None:
    (guess,) = problems("VQ101", MEMORY.replace(ratio=0.0015))
    assert guess.confidence is Confidence.MEDIUM
    assert guess.decide_with.startswith("--data")
    (certain,) = problems("VQ101", GRADIENT.replace(estimator="none", ratio=0.0))
    assert certain.confidence is Confidence.HIGH
    assert certain.decide_with == ""


def test_too_few_vectors_says_how_many_are_needed() -> None:
    with pytest.raises(CannotJudge, match=r"give 8,192$"):
        problems("VQ501", usage(512, 64, 45, 50))
    with pytest.raises(CannotJudge, match=r"give 30,720$"):
        problems("VQ502", usage(1024, 2_000, 250, 300))


def test_the_message_quotes_what_was_measured() -> None:
    (collapse,) = problems("VQ501", usage(256, 28_752, 1, 1))
    assert collapse.message == (
        "The model uses the equivalent of 1 of its 256 codes (perplexity), where at least 50 are expected."
    )
    (nan,) = problems("VQ901", NonFinite.healthy(tensors=("a", "b", "c", "d"), tensor_count=9, nan=12))
    assert nan.message == "a, b, c and 6 more hold 12 NaN values."


def test_dead_codes_of_a_uniform_codebook_are_never_claimed_from_a_small_sample() -> None:
    """Independent of the check's formula: sizes from far too few to plenty, on simulated even usage."""
    rng = random.Random(0)
    for n in (20, 64, 256, 1_024, 4_096, 16_384):
        counts: dict[int, int] = {}
        for _ in range(n):
            code = rng.randrange(256)
            counts[code] = counts.get(code, 0) + 1
        active = sum(count > 0.1 * n / 256 for count in counts.values())
        assert says("VQ502", usage(256, n, len(counts), len(counts), active=active)) == "passes"


@pytest.mark.parametrize("n", [64, 256, 1_024, 4_096, 16_384])
def test_half_dead_is_a_pass_or_undecided_and_nine_tenths_dead_never_a_pass(n: int) -> None:
    rng = random.Random(1)
    for alive, allowed in ((128, {"passes", "cannot judge"}), (24, {"error", "cannot judge"})):
        codes = [rng.randrange(alive) for _ in range(n)]
        used = len(set(codes))
        assert says("VQ502", usage(256, n, used, used)) in allowed, (alive, used)


def test_severity_never_exceeds_a_warning_for_a_weight_alone() -> None:
    (heavy,) = problems("VQ201", RECORD.replace(vq_weight=1e6))
    assert heavy.severity is Severity.WARNING
