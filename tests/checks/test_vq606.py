"""VQ606 train-eval-gap just inside and just outside its limits."""

from __future__ import annotations

import pytest
from judged import problems, says

from vqdoctor.core.evidence import Evidence, ResidualLevel, TaskMetrics, TrainEvalGap

GAP = TrainEvalGap.healthy(
    agreement=0.3, explained=0.9, train_loss=0.1, eval_loss=0.5, train_perplexity=100.0, eval_perplexity=100.0
)
BLEND = TrainEvalGap.healthy(train_loss=0.1, eval_loss=0.16, blend=0.26)
LEFT = TaskMetrics.healthy(accuracy=None, chance_accuracy=None, loss=0.31, mean_code_loss=1.0)
NOISY = TrainEvalGap.healthy(agreement=0.33, repeated=0.33)


@pytest.mark.parametrize(
    ("evidence", "expected"),
    [
        ([GAP], "warning"),
        ([GAP.replace(agreement=0.64)], "warning"),
        ([GAP.replace(agreement=0.66)], "passes"),
        ([GAP.replace(eval_loss=0.151)], "warning"),
        ([GAP.replace(eval_loss=0.149)], "passes"),
        ([GAP.replace(eval_loss=0.1, eval_perplexity=49.0)], "warning"),
        ([GAP.replace(eval_loss=0.1, eval_perplexity=51.0)], "passes"),
        ([GAP.replace(train_loss=0.0)], "passes"),
        # noise that decides about two codes of three, at no cost in this batch
        ([NOISY], "warning"),
        ([NOISY.replace(agreement=0.34)], "passes"),
        ([NOISY.replace(repeated=0.34)], "passes"),
        ([NOISY.replace(agreement=0.26, repeated=0.26, explained=0.8)], "warning"),
        ([NOISY.replace(agreement=0.27, repeated=0.27, explained=0.8)], "passes"),
        # where z_e was seen twice, its noise tells more than how many codes it changes
        ([NOISY.replace(noise=0.26)], "warning"),
        ([NOISY.replace(noise=0.24)], "passes"),
        ([NOISY.replace(noise=0.24, eval_loss=1.0)], "warning"),
        ([NOISY.replace(noise=0.26, agreement=0.74, repeated=0.74)], "warning"),
        ([NOISY.replace(noise=0.26, agreement=0.76, repeated=0.74)], "warning"),
        ([NOISY.replace(noise=0.26, agreement=0.74, repeated=0.76)], "passes"),
        # the same codes, and something else than codes put out in training
        ([BLEND], "warning"),
        ([BLEND.replace(blend=0.24)], "passes"),
        ([BLEND.replace(eval_loss=0.14)], "passes"),
        ([BLEND.replace(blend=None)], "passes"),
        # most of the task is still to do, and the modes differ in it
        ([BLEND, LEFT], "error"),
        ([GAP, LEFT], "error"),
        ([NOISY, LEFT], "error"),
        ([BLEND.replace(blend=0.0, never_codes=True), LEFT], "error"),
        ([BLEND, LEFT.replace(loss=0.29)], "warning"),
        ([GAP.replace(sample_size=8)], "warning"),
        ([GAP.replace(sample_size=7)], "cannot judge"),
        # levels after the first follow those before them; what they put out in training is their own
        ([GAP, ResidualLevel.healthy(level=1)], "warning"),
        ([GAP, ResidualLevel.healthy(level=2)], "cannot judge"),
        ([BLEND, ResidualLevel.healthy(level=2)], "warning"),
    ],
)
def test_limits(evidence: list[Evidence], expected: str) -> None:
    assert says("VQ606", *evidence) == expected


def test_the_advice_fits_what_moves_the_codes() -> None:
    stale, noisy = problems("VQ606", GAP), problems("VQ606", NOISY)
    assert stale[0].remedies == ("refresh-batch-norm",)
    assert noisy[0].remedies == ("no-noise-before-codes",)
    assert "noise or dropout" in noisy[0].message
