"""When a symptom has the model examined, and which findings are reported."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from vqdoctor.checks import all_checks
from vqdoctor.checks._usage import COLLAPSED_USAGE
from vqdoctor.core.evidence import (
    CountsUsage,
    EmaRelation,
    EncoderSpread,
    Evidence,
    GradientPath,
    NonFinite,
    Usage,
)
from vqdoctor.core.report import LayerSummary, Report
from vqdoctor.core.settings import Settings
from vqdoctor.engine.evaluate import choose
from vqdoctor.engine.examine import concluded
from vqdoctor.engine.symptoms import PATIENCE, SPARE, YOUNG, Symptom, Symptoms


def report(*evidence: Evidence) -> Report:
    """The report of an examination that finds this."""
    layer = LayerSummary(name="vq", layout="x", layout_confidence="high", num_codes=256, dim=64)
    bare = Report(
        version="0", checkpoint=None, layers=(layer,), findings=(), plan=(), evidence=evidence,
        unavailable=(), outcomes=(), verdict="inconclusive",
    )  # fmt: skip
    return concluded(bare, choose(all_checks(), Settings()))


NO_ESTIMATOR = GradientPath.healthy(estimator="none", ratio=0.0, cosine=None, zero_share=1.0, worst_gain=0.0)
SICK = (COLLAPSED_USAGE, EncoderSpread.healthy(), NonFinite.healthy())
SOUND = (Usage.healthy(), EncoderSpread.healthy(), NonFinite.healthy())


@dataclass
class Examined:
    """An examination that always finds the same, and counts."""

    finds: tuple[Evidence, ...]
    times: int = 0
    symptoms: Symptoms = field(init=False)

    def __post_init__(self) -> None:
        self.symptoms = Symptoms(layers=["vq"], examine=self)

    def __call__(self) -> Report:
        self.times += 1
        return report(*self.finds)

    def look(self, step: int, *evidence: Evidence) -> list[str]:
        return [event.code for event in self.symptoms.look(step, evidence)]


def test_a_healthy_interval_has_no_examination() -> None:
    examined = Examined(SOUND)
    assert [examined.look(step, *SOUND) for step in range(4)] == [[]] * 4 and examined.times == 0


def test_a_cause_is_reported_at_once_and_its_symptoms_never() -> None:
    examined = Examined((COLLAPSED_USAGE, NO_ESTIMATOR))
    assert [examined.look(step, *SICK) for step in range(9)] == [["VQ101"], *[[]] * 8]
    assert examined.times == 1


def test_without_a_cause_a_symptom_is_reported_when_it_lasts() -> None:
    examined = Examined((COLLAPSED_USAGE,))
    assert examined.look(100, *SICK) == []
    assert examined.look(200, *SOUND) == []
    assert examined.look(300, *SICK) == []
    events = examined.symptoms.look(400, SICK)
    assert [(event.code, event.since) for event in events] == [("VQ501", 300), ("VQ502", 300)]


def test_a_young_training_is_not_accused_however_short_its_intervals() -> None:
    examined = Examined((COLLAPSED_USAGE,))
    told = {step: examined.look(step, *SICK) for step in range(10, YOUNG + 10, 10)}
    assert {step for step, codes in told.items() if codes} == {YOUNG}


def used(perplexity: float) -> tuple[Evidence, ...]:
    """An interval with active codes and this perplexity, of at least 50."""
    return Usage.healthy(perplexity=perplexity, perplexity_high=perplexity), *SOUND[1:]


def test_usage_that_is_about_to_be_sound_waits() -> None:
    told = {}
    examined = Examined(used(48.0))
    for step in range(100, PATIENCE + 200, 100):
        told[step] = examined.look(step, *used(30.0 if step == 100 else 48.0))
    assert {step for step, codes in told.items() if codes} == {100 + PATIENCE}


@pytest.mark.parametrize("rise", [[2.3, 2.7], [42.3, 32.0]])
def test_usage_that_crawls_or_falls_does_not_wait(rise: list[float]) -> None:
    examined = Examined(used(rise[1]))
    assert [examined.look(100 * (i + 1), *used(perplexity)) for i, perplexity in enumerate(rise)] == [
        [],
        ["VQ501"],
    ]


def test_usage_that_leaps_in_a_single_step_waits() -> None:
    """An interval may be one step; that growth over `AHEAD` steps is beyond the largest number."""
    symptom = Symptom(since=0, share=0.5, lowest=0.01, lowest_at=10)
    assert symptom.is_mending(11)
    assert not Symptom(since=0, share=0.01, lowest=0.01, lowest_at=10).is_mending(11)


def test_a_collapse_from_soundness_does_not_wait_for_a_rise() -> None:
    examined = Examined(used(48.0))
    told = [examined.look(YOUNG, *SOUND), examined.look(300, *used(30.0)), examined.look(400, *used(48.0))]
    assert told == [[], [], ["VQ501"]]


def test_a_doubt_waits() -> None:
    examined = Examined(used(48.0))
    usage = Usage.healthy(perplexity=48.0, perplexity_high=52.0)
    told = [examined.look(step, usage) for step in range(YOUNG, YOUNG + PATIENCE + 100, 100)]
    assert told == [*[[]] * (PATIENCE // 100), ["VQ501"]]


ON_SPHERE = EmaRelation.healthy(
    scale=0.2, scale_spread=0.08, code_norm=1.0, code_norm_spread=5e-8, mean_norm=4.91
)


def test_a_fault_of_the_code_is_reported_at_once_while_the_usage_is_fine() -> None:
    examined = Examined((*SOUND, ON_SPHERE))
    assert [examined.look(step, *SOUND, ON_SPHERE) for step in (100, 200)] == [["VQ310"], []]


def test_a_fault_of_the_code_that_the_examination_refutes_is_not_reported() -> None:
    examined = Examined((COLLAPSED_USAGE,))
    assert examined.look(100, *SOUND, ON_SPHERE) == [] and examined.times == 1
    assert examined.look(200, *SICK, ON_SPHERE) == []
    assert examined.look(300, *SICK, ON_SPHERE) == ["VQ501", "VQ502"]


def test_counts_that_hide_a_collapse_are_reported_beside_it() -> None:
    counts = CountsUsage.healthy(perplexity=52.0, low=50.0, high=54.0)
    examined = Examined((COLLAPSED_USAGE, counts))
    assert [examined.look(step, *SICK, counts) for step in (100, 200)] == [[], ["VQ501", "VQ502", "VQ508"]]
    assert Examined(SOUND).look(200, *SOUND, CountsUsage.healthy()) == []


def test_what_is_not_finite_is_reported_at_once() -> None:
    broken = NonFinite.healthy(source="batch", tensors=("z_e",), tensor_count=1, nan=1)
    assert Examined((broken,)).look(100, broken) == ["VQ901"]


@pytest.mark.parametrize("comes_and_goes", [False, True])
def test_a_long_training_has_few_examinations(comes_and_goes: bool) -> None:
    examined = Examined(SOUND)
    for interval in range(1, 1025):
        rising = COLLAPSED_USAGE.replace(perplexity=1 + interval / 50, perplexity_high=1 + interval / 50)
        now = SOUND if comes_and_goes and interval % 2 else (rising, *SICK[1:])
        examined.look(interval, *now)
    assert 1 < examined.times <= SPARE + 11
