"""VQ501 codebook-collapse just inside and just outside its limits."""

from __future__ import annotations

import pytest
from judged import problems, says, usage

from vqdoctor.checks._usage import IMPLICIT_USAGE
from vqdoctor.core.check import CannotJudge
from vqdoctor.core.evidence import Evidence, TaskMetrics

STORED = IMPLICIT_USAGE.replace(num_codes=4096, perplexity=65.0, perplexity_high=66.0, implicit=False)
NEARLY = STORED.replace(perplexity=103.0, perplexity_high=104.0)
AS_WITHOUT = TaskMetrics.healthy(accuracy=0.4, bypass_accuracy=0.41, chance_accuracy=0.2)
CLASSIFIER = TaskMetrics.healthy(classes=10)


def _decoder(loss: float, without: float) -> TaskMetrics:
    return TaskMetrics.healthy(
        accuracy=None, bypass_accuracy=None, loss=loss, bypass_loss=without, mean_code_loss=1.0
    )


EMA = usage(4096, 1_200, 150, 400, source="checkpoint", effective_size=None)


@pytest.mark.parametrize(
    ("evidence", "expected"),
    [
        # half of the bits where nothing is stored, 5 % of K where a codebook is
        ([IMPLICIT_USAGE.replace(num_codes=4096, perplexity=65.0, perplexity_high=66.0)], "passes"),
        ([IMPLICIT_USAGE.replace(num_codes=4096, perplexity=62.0, perplexity_high=63.0)], "error"),
        # codes that are never chosen do not show where K is unknown; too few are too few of any K
        ([IMPLICIT_USAGE.replace(at_least=True)], "cannot judge"),
        ([IMPLICIT_USAGE.replace(perplexity=9.0, perplexity_high=9.5, at_least=True)], "error"),
        ([STORED], "error"),
        # a pure classifier needs no more, whether its codes are stored or not
        ([IMPLICIT_USAGE.replace(num_codes=4096, perplexity=30.0, perplexity_high=31.0), CLASSIFIER], "note"),
        ([STORED.replace(perplexity=30.0, perplexity_high=31.0), CLASSIFIER], "note"),
        # a decoder of data with few modes needs no more, if next to no loss is left with codes or without
        ([STORED, _decoder(0.0196, 0.0188)], "note"),
        ([STORED, _decoder(0.0204, 0.0200)], "error"),
        # from half of the limit on, where z_e in place of the codes does the task no better
        ([NEARLY, AS_WITHOUT], "warning"),
        ([NEARLY, AS_WITHOUT.replace(bypass_accuracy=0.6)], "error"),
        ([NEARLY, AS_WITHOUT.replace(bypass_accuracy=None, bypass_loss=None)], "error"),
        ([NEARLY], "error"),
        ([NEARLY.replace(source="checkpoint"), AS_WITHOUT], "error"),
        ([NEARLY.replace(perplexity=101.0, perplexity_high=102.0), AS_WITHOUT], "error"),
        ([STORED, _decoder(0.0196, 0.0180)], "error"),
        # max(min(50, 0.2 K), 0.05 K)
        ([usage(256, 28_752, 49.9, 60)], "error"),
        ([usage(256, 28_752, 50.1, 60)], "passes"),
        ([usage(256, 28_752, 49.9, 60, perplexity_high=50.1)], "warning"),
        ([usage(64, 28_752, 12.9, 14)], "passes"),
        ([usage(64, 28_752, 12.7, 14)], "error"),
        ([usage(8192, 1e6, 409, 900)], "error"),
        ([usage(8192, 1e6, 410, 900)], "passes"),
        # a modem tone on a speech codec, and a deployed codec on four sample sizes
        ([usage(512, 5_767, 3.3, 8)], "error"),
        ([usage(512, 64, 45, 50)], "cannot judge"),
        ([usage(512, 256, 104, 132)], "passes"),
        ([usage(512, 4_096, 182, 415)], "passes"),
        # one code for 64 vectors is a collapse however small the sample
        ([usage(512, 64, 1, 1)], "error"),
        ([usage(512, 28_752, 20, 40, effective_size=300.0)], "error"),
        ([usage(512, 28_752, 40, 60, effective_size=300.0)], "cannot judge"),
        # EMA counts remember more than their sum
        ([EMA.replace(window=9.0)], "error"),
        ([EMA.replace(window=1.0)], "cannot judge"),
    ],
)
def test_limits(evidence: list[Evidence], expected: str) -> None:
    assert says("VQ501", *evidence) == expected


def test_too_few_vectors_says_how_many_are_needed() -> None:
    with pytest.raises(CannotJudge, match=r"give 8,192$"):
        problems("VQ501", usage(512, 64, 45, 50))


def test_the_message_quotes_what_was_measured() -> None:
    (collapse,) = problems("VQ501", usage(256, 28_752, 1, 1))
    assert collapse.message == (
        "The model uses the equivalent of 1 of its 256 codes (perplexity), where at least 50 are expected."
    )
