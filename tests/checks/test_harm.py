"""Harm by the vectors that the codes replace: by accuracy where there is any, else by the loss."""

from __future__ import annotations

import pytest
from judged import says

from vqdoctor.checks import _harm
from vqdoctor.checks.vq509_dimensional_collapse import NARROW
from vqdoctor.core.evidence import (
    BatchMixing,
    CodebookGradient,
    DataMatch,
    Directions,
    EmaRelation,
    LossBalance,
    LossPath,
    LossTerms,
    LossUse,
    TaskMetrics,
)

METRICS = TaskMetrics.healthy()
LOSSES = METRICS.replace(accuracy=None, bypass_accuracy=None, chance_accuracy=None, mean_code_loss=1.0)


@pytest.mark.parametrize(
    ("metrics", "expected"),
    [
        (None, "warning"),
        (METRICS, "warning"),
        # a fifth of 0.96 - 0.11
        (METRICS.replace(accuracy=0.78), "error"),
        (METRICS.replace(accuracy=0.8), "warning"),
        (METRICS.replace(accuracy=0.78, sample_size=40), "warning"),
        (METRICS.replace(accuracy=0.05, bypass_accuracy=0.1), "warning"),
        # an accuracy that holds outweighs a loss that does not
        (METRICS.replace(loss=2.0, bypass_loss=0.1, mean_code_loss=2.6), "warning"),
        (LOSSES.replace(loss=0.29, bypass_loss=0.1), "error"),
        (LOSSES.replace(loss=0.27, bypass_loss=0.1), "warning"),
        # z_e was never decoded, or the loss without the layer is no loss at all
        (LOSSES.replace(loss=0.29, bypass_loss=361_437.0), "warning"),
        (LOSSES.replace(loss=0.29, bypass_loss=0.0), "warning"),
        (LOSSES.replace(loss=0.29, bypass_loss=None), "warning"),
    ],
)
def test_severity(metrics: TaskMetrics | None, expected: str) -> None:
    assert _harm.severity(metrics).label == expected


RUINED = METRICS.replace(accuracy=0.5, bypass_accuracy=0.5)


@pytest.mark.parametrize(
    ("directions", "metrics", "expected"),
    [
        (NARROW, RUINED, True),
        (NARROW, METRICS, False),
        (NARROW, None, False),
        (None, RUINED, False),
        (NARROW.replace(vector_directions=6), RUINED, False),
        (NARROW.replace(dim=8), RUINED, False),
        (NARROW.replace(input_directions=7), RUINED, False),
    ],
)
def test_an_encoder_is_ruined_where_it_lost_directions_and_the_task_shows_it(
    directions: Directions | None, metrics: TaskMetrics | None, expected: bool
) -> None:
    assert _harm.narrowed(directions, metrics) is expected


@pytest.mark.parametrize("loss", [0.31, 0.29])
def test_a_summed_loss_and_a_light_one_are_told_at_any_pull_where_the_encoder_is_ruined(loss: float) -> None:
    losses = LOSSES.replace(loss=loss)
    summed = LossTerms.healthy(commitment=16.0, codebook=64.0)
    told = says("VQ204", summed, LossBalance.healthy(vq_weight=1.0, ratio=0.55), NARROW, losses)
    assert told == ("error" if loss > _harm.UNDONE else "note")
    light = says("VQ202", DataMatch.healthy(), LossBalance.healthy(ratio=3.6e-5), NARROW, losses)
    assert light == ("warning" if loss > _harm.UNDONE else "passes")


@pytest.mark.parametrize("accuracy", [0.4, 0.8])
def test_batches_in_order_are_an_error_where_the_codes_cost_the_task(accuracy: float) -> None:
    mixing = BatchMixing.healthy(label_drift=0.5, label_z=40.0)
    metrics = METRICS.replace(accuracy=accuracy, bypass_accuracy=0.81)
    assert says("VQ403", mixing, metrics) == ("error" if accuracy < 0.7 else "warning")


@pytest.mark.parametrize(
    ("metrics", "expected"),
    [
        (None, "warning"),
        (METRICS.replace(accuracy=0.94), "error"),
        (METRICS.replace(accuracy=0.96), "warning"),
        (LOSSES, "error"),
    ],
)
def test_a_cause_that_acts_is_an_error_where_the_task_has_something_to_lose(
    metrics: TaskMetrics | None, expected: str
) -> None:
    assert _harm.severity(metrics, acts=True).label == expected


@pytest.mark.parametrize(
    ("balance", "expected"),
    [
        (LossBalance.healthy(ratio=1.01), True),
        (LossBalance.healthy(ratio=0.99), False),
        (LossBalance.healthy(ratio=None), False),
        (None, False),
    ],
)
def test_an_encoder_is_outpulled_from_equal_gradients_on(balance: LossBalance | None, expected: bool) -> None:
    assert _harm.outpulled(balance) is expected


@pytest.mark.parametrize(
    ("metrics", "expected"),
    [
        (METRICS.replace(loss=0.2, bypass_loss=0.25), True),
        (METRICS.replace(loss=0.2, bypass_loss=0.23), False),
        (METRICS.replace(loss=0.2, bypass_loss=0.1), False),
        (METRICS.replace(bypass_loss=None), False),
        (None, False),
    ],
)
def test_an_encoder_is_apart_from_its_codes_where_the_task_is_worse_with_it(
    metrics: TaskMetrics | None, expected: bool
) -> None:
    assert _harm.apart(metrics, EmaRelation.healthy()) is expected
    assert not _harm.apart(metrics, EmaRelation.healthy(scale=400.0))


BESIDE = {
    "VQ201": [LossBalance.healthy(vq_weight=100.0, ratio=1.3)],
    "VQ204": [LossTerms.healthy(commitment=16.0), LossBalance.healthy(vq_weight=1.0, ratio=1.3)],
    "VQ205": [LossUse.healthy(used=False, reported=None, gradient=None)],
    "VQ206": [LossPath.healthy(alive=False)],
}


@pytest.mark.parametrize("code", BESIDE)
def test_a_loss_that_harms_the_encoder_is_an_error(code: str) -> None:
    harmed = METRICS.replace(accuracy=0.8, bypass_accuracy=0.8, loss=0.6, bypass_loss=0.8)
    assert says(code, *BESIDE[code], harmed) == "error"
    assert says(code, *BESIDE[code], METRICS) == "warning"


def test_codes_of_a_wrong_length_explode_the_vq_loss_of_any_weight() -> None:
    pulls, broken = LossBalance.healthy(ratio=294.0), EmaRelation.healthy(scale=400.0)
    assert says("VQ201", pulls, EmaRelation.healthy()) == "warning"
    assert says("VQ201", pulls, broken) == "cannot judge"
    assert says("VQ201", pulls.replace(vq_weight=100.0), broken) == "warning"


@pytest.mark.parametrize(
    ("mover", "expected"),
    [
        (CodebookGradient.healthy(trainable=True, ema_owned=False, gradient=None), "error"),
        (CodebookGradient.healthy(trainable=True, ema_owned=False, gradient=0.1), "warning"),
        (CodebookGradient.healthy(trainable=False, ema_owned=True, gradient=None), "warning"),
    ],
)
def test_a_loss_that_alone_could_train_the_codes_is_missed_by_them(
    mover: CodebookGradient, expected: str
) -> None:
    assert says("VQ205", *BESIDE["VQ205"], mover) == expected
