"""Conformal sets hold the right label as often as is promised; a temperature is the most likely one."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

from vqdoctor.metrics.calibration import expected_calibration_error, softmax, temperature_of
from vqdoctor.metrics.conformal import conformal_sets


def drawn(rng: np.random.Generator, samples: int, sharpness: float) -> tuple[np.ndarray, np.ndarray]:
    """Logits [N, 5] that are too sure by a factor, and labels that follow the true odds."""
    logits = rng.normal(size=(samples, 5)) * 2
    labels = np.array([rng.choice(5, p=row) for row in softmax(logits)])
    return logits * sharpness, labels


@pytest.mark.parametrize("coverage", [0.8, 0.9])
def test_the_sets_cover_what_they_promise_on_average(coverage: float) -> None:
    rng = np.random.default_rng(0)
    covered = []
    for _ in range(200):
        logits, labels = drawn(rng, 150, sharpness=3.0)
        odds = softmax(logits)
        sets = conformal_sets(odds[:50], labels[:50], odds[50:], coverage)
        covered.append(sets[np.arange(100), labels[50:]].mean())
    # Exchangeable samples: the mean is between coverage and coverage + 1/51; three standard errors beside.
    error = 3 * np.std(covered) / np.sqrt(200)
    assert coverage - error <= np.mean(covered) <= coverage + 1 / 51 + error


def test_too_few_held_out_samples_give_every_label() -> None:
    assert conformal_sets([[0.9, 0.1]] * 8, [0] * 8, [[1.0, 0.0]]).all()


@pytest.mark.parametrize(
    ("held_out", "labels", "scores"),
    [
        (np.ones((0, 2)), [], np.ones((1, 2))),
        (np.ones((3, 2)), [0], np.ones((1, 2))),
        (np.ones((1, 2)), [0], np.ones((1, 3))),
    ],
)
def test_shapes_that_do_not_fit_are_refused(held_out: object, labels: object, scores: object) -> None:
    with pytest.raises(ValueError, match="held out"):
        conformal_sets(held_out, labels, scores)  # type: ignore[arg-type]


@pytest.mark.parametrize("sharpness", [0.3, 1.0, 4.0])
def test_the_temperature_is_that_of_a_general_minimiser(sharpness: float) -> None:
    logits, labels = drawn(np.random.default_rng(1), 400, sharpness)

    def surprise(temperature: float) -> float:
        return float(-log_softmax(logits / temperature, axis=1)[np.arange(400), labels].mean())

    best = minimize_scalar(surprise, bounds=(0.05, 20), method="bounded", options={"xatol": 1e-9}).x
    found = temperature_of(logits, labels)
    assert found == pytest.approx(best, rel=1e-4)
    before = expected_calibration_error(softmax(logits), labels)
    after = expected_calibration_error(softmax(logits / found), labels)
    assert after < before or sharpness == 1.0
