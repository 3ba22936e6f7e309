"""VQ309: the EMA writes codes that are not the means of their vectors."""

from pathlib import Path

import pytest
import torch
from judged import says

from vqdoctor.checks import _scale
from vqdoctor.checks.vq309_ema_update_wrong import CHECK
from vqdoctor.core.evidence import EmaAdvances, EmaRelation, LookupScale
from vqdoctor.core.levels import Confidence, Severity
from vqdoctor.engine.examine import examine

SAMPLES = Path(__file__).parents[2] / "sample_checkpoints"


def judge(**changes):
    return CHECK.judge({EmaRelation: EmaRelation.healthy(**changes)})


def test_the_lost_normaliser_is_named_by_its_size():
    (problem,) = judge(scale=401.0, code_norm=8_421.0)
    assert (problem.severity, problem.confidence) == (Severity.ERROR, Confidence.HIGH)
    assert "401 times as long" in problem.message
    assert "multiply by their sum again" in problem.message
    assert "multiplies by it twice" in judge(scale=1 / 400)[0].message
    assert "a factor too many" in judge(scale=0.7)[0].message


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"scale": 1.11}, "error"),
        ({"scale": 1.09}, "passes"),
        ({"scale": 0.89}, "error"),
        ({"scale": 1.5, "scale_spread": 0.019}, "error"),
        ({"scale": 1.5, "scale_spread": 0.021}, "passes"),
        ({"scale": 1.5, "cosine": 0.998}, "passes"),
        ({"scale": 1.5, "code_norm_spread": 5e-8}, "passes"),
        ({"scale": 1.6, "scale_spread": 1.1, "sum_scale": 1.0, "count_power": 1.01}, "error"),
        ({"scale": 1.6, "scale_spread": 1.1, "sum_scale": 1.0, "count_power": 0.9}, "passes"),
        ({"scale": 0.9, "scale_spread": 0.2, "divisor": "added", "added": 0.11}, "error"),
        ({"scale": 0.9, "scale_spread": 0.2, "divisor": "added", "added": 0.09}, "passes"),
        ({"scale": 0.9, "scale_spread": 0.2, "divisor": "whole"}, "error"),
        ({"scale": 0.9, "scale_spread": 0.2, "divisor": "whole", "cosine": 0.998}, "passes"),
        ({"scale": 0.9, "scale_spread": 0.2, "divisor": "inverse", "sample_size": 1}, "passes"),
        ({"scale": 0.9, "scale_spread": 0.2, "divisor": "inverse", "code_norm_spread": 5e-8}, "passes"),
        ({"scale": 0.9, "scale_spread": 0.2, "divisor": ""}, "passes"),
    ],
)
def test_limits(changes, expected):
    assert says("VQ309", EmaRelation.healthy(**changes)) == expected


@pytest.mark.parametrize(
    ("total", "factor", "expected"),
    [
        (1.0, 0.099, "error"),
        (1.0, 0.101, "passes"),
        (1.011, 0.002, "passes"),
        (400.0, 0.002, "passes"),
        (1.0, 0.0, "passes"),
        (1.0, -0.5, "passes"),
    ],
)
def test_counts_that_are_shares_are_compared_with_the_vectors(total, factor, expected):
    assert says("VQ309", EmaRelation.healthy(total=total), LookupScale.healthy(factor=factor)) == expected


@pytest.mark.parametrize("scale", [0.92, 0.99, 1.01, 1.08])
def test_a_factor_near_one_is_none(scale):
    assert not judge(scale=scale)


def test_one_code_tells_the_total_and_no_other_factor():
    assert judge(sample_size=1, scale=400.0, code_norm_spread=0.0)
    assert not judge(sample_size=1, scale=7.0, code_norm_spread=0.0)


def test_a_collapsed_cosine_codebook_is_not_one_factor():
    found = EmaRelation.healthy(
        sample_size=2, scale=1.3, scale_spread=0.01, code_norm=1.0, code_norm_spread=1e-7, mean_norm=0.77
    )
    assert not CHECK.judge({EmaRelation: found})
    assert not _scale.broken(found)


def test_sums_of_a_start_without_an_update_are_not_taken_for_a_rule(tmp_path):
    """As encodec's k-means leaves them: sums are the codes, counts whole numbers."""
    torch.manual_seed(0)
    codes, counts = torch.randn(32, 8), torch.randint(1, 90, (32,)).float()
    for moved, expected in ((0.0, False), (0.25, True)):
        saved = {
            "vq.embedding": codes,
            "vq.ema_cluster_size": counts + moved,
            "vq.ema_embed_sum": codes.clone(),
        }
        torch.save(saved, tmp_path / "start.pt")
        found = {f.code for f in examine(tmp_path / "start.pt").findings}
        assert ("VQ309" in found) is expected


def test_the_first_models_layer_a_is_named_first_and_explains_the_rest():
    report = examine(SAMPLES / "unnormalised-ema.pt")
    first = report.findings[0]
    assert (first.code, first.layer, first.explained_by) == ("VQ309", "vq", None)
    assert {f.code for f in report.findings if f.explained_by == "VQ309:vq"} >= {"VQ501", "VQ502", "VQ303"}
    status = {outcome.code: outcome.status for outcome in report.outcomes}
    assert status["VQ101"] == "skipped", "large gradients behind the layer prove no cut"
    assert status["VQ505"] == "skipped"


@pytest.mark.parametrize(
    ("sums", "counts", "expected"),
    [
        (0.99, 1.0, "error"),
        (1.0, 0.99, "error"),
        (0.99, 0.99499, "passes"),
        (0.99, 0.99501, "error"),
        (0.9995, 0.99999, "passes"),
        (0.9994, 0.99999, "error"),
        (1.0, 1.0, "passes"),
        (None, 1.0, "passes"),
        (0.9, None, "passes"),
    ],
)
def test_two_memories(sums: float | None, counts: float | None, expected: str) -> None:
    advances = EmaAdvances.healthy(sums_kept=sums, counts_kept=counts)
    assert says("VQ309", EmaRelation.healthy(), advances) == expected
