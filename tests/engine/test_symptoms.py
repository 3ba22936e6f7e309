"""When a symptom has the model examined, and which findings are reported."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from vqdoctor.checks import all_checks
from vqdoctor.checks._usage import COLLAPSED_USAGE
from vqdoctor.core.evidence import EncoderSpread, Evidence, GradientPath, NonFinite, Usage
from vqdoctor.core.report import LayerSummary, Report
from vqdoctor.core.settings import Settings
from vqdoctor.engine.evaluate import choose
from vqdoctor.engine.examine import concluded
from vqdoctor.engine.symptoms import PATIENCE, SPARE, Symptoms


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
    assert [(event.code, event.since) for event in events] == [("VQ501", 300)]


def test_a_perplexity_that_rises_waits() -> None:
    examined = Examined((COLLAPSED_USAGE,))
    for step in range(1, PATIENCE + 1):
        perplexity = 1.2**step
        usage = COLLAPSED_USAGE.replace(perplexity=perplexity, perplexity_high=perplexity)
        assert examined.look(step, usage, *SICK[1:]) == ([] if step < PATIENCE else ["VQ501"])


def test_a_collapse_from_soundness_does_not_wait_for_a_rise() -> None:
    examined = Examined((COLLAPSED_USAGE,))
    told = [examined.look(0, *SOUND)]
    for step in (1, 2):
        usage = COLLAPSED_USAGE.replace(perplexity=1.5**step, perplexity_high=1.5**step)
        told.append(examined.look(step, usage, *SICK[1:]))
    assert told == [[], [], ["VQ501"]]


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
