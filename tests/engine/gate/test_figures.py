"""What a report says of a metric: intervals that hold on samples of a known population."""

from __future__ import annotations

import numpy as np
import pytest
from gate_reports import a_report, a_usage, of_ema
from scipy import stats

from vqdoctor.core.assertion import METRICS
from vqdoctor.engine.gate.figures import ASSUMED_EFFECT, Figure, Unknown, _poisson_ends, figure
from vqdoctor.probes._usage import usage_from_indices


def of(usage, metric: str) -> Figure:
    found = figure(a_report(usage), METRICS[metric], "vq")
    assert isinstance(found, Figure)
    return found


@pytest.mark.parametrize("vectors_per_code", [1, 4, 16, 64])
@pytest.mark.parametrize("live", [256, 128, 20])
@pytest.mark.parametrize("histogram", [True, False])
def test_the_truth_lies_within_the_intervals_of_usage_and_dead_codes(
    vectors_per_code: int, live: int, histogram: bool
) -> None:
    rng = np.random.default_rng(0)
    truth = {"usage": live / 256, "dead": 1 - live / 256}
    inside = {"usage": 0, "dead": 0}
    for _ in range(40):
        indices = rng.integers(0, live, 256 * vectors_per_code)
        usage = usage_from_indices(
            indices, 256, layer="vq", groups=np.arange(indices.size), histogram=histogram
        )
        for metric, value in truth.items():
            found = of(usage, metric)
            assert 0 <= found.low <= found.value <= found.high <= 1
            inside[metric] += found.low <= value <= found.high
    assert min(inside.values()) >= 37  # 95 % of 40, and one less


def test_the_intervals_shrink_to_the_point_with_the_sample() -> None:
    rng = np.random.default_rng(0)
    indices = rng.integers(0, 128, 256 * 1000)
    usage = usage_from_indices(indices, 256, layer="vq", groups=np.arange(indices.size))
    for metric in ("usage", "dead"):
        found = of(usage, metric)
        assert found.value == 0.5
        assert found.high - found.low < 0.02


def test_codes_at_the_boundary_are_in_doubt() -> None:
    p = np.r_[np.full(128, 19.0), np.ones(128)]  # half of them have a tenth of the even share
    rng = np.random.default_rng(0)
    indices = rng.choice(256, 256 * 64, p=p / p.sum())
    usage = usage_from_indices(indices, 256, layer="vq", groups=np.arange(indices.size), histogram=True)
    found = of(usage, "dead")
    assert found.low < 0.05 and found.high > 0.45


def test_ema_counts_are_held_to_fewer_vectors_than_they_sum_to() -> None:
    found = of(of_ema(180, 1), "perplexity")
    wide = 180 - 180 * (179 / 180) ** np.sqrt(ASSUMED_EFFECT)
    assert 180 - found.low == pytest.approx(wide, rel=0.01)
    assert found.high - 180 == pytest.approx(wide, rel=0.05)
    assert not found.shortage and "EMA counts over ~200 batches" in found.origin
    few = of(of_ema(effective_size=256.0 * ASSUMED_EFFECT - 1), "perplexity")
    assert "too few for 256 codes; --data BATCH would tell" in few.shortage
    unknown = of(of_ema(window=None, effective_size=None), "perplexity")
    assert unknown.shortage and "unrecorded window" in unknown.origin


def test_the_upper_end_never_exceeds_the_codes() -> None:
    assert of(of_ema(250, 6), "perplexity").high == 256
    assert of(a_usage(254, 5), "perplexity").high == 256


def test_combinations_of_levels_cannot_die() -> None:
    found = figure(a_report(a_usage(implicit=True)), METRICS["dead"], "vq")
    assert isinstance(found, Unknown) and "cannot die" in found.reason


@pytest.mark.parametrize("mean", [0.1, 0.4, 1.6, 3.0, 6.4, 25.6, 99.0, 150.0, 2000.0])
def test_the_ends_are_scipys_poisson(mean: float) -> None:
    below, above = _poisson_ends(mean)
    exact = stats.poisson(mean)
    slack = 2 if mean > 100 else 0
    assert above == pytest.approx(exact.ppf(0.975), abs=slack)
    assert below == pytest.approx(max(0, exact.ppf(0.025) - 1), abs=slack)
