"""VQ207 vq-loss-rewards-collapse just inside and just outside its limits."""

from __future__ import annotations

import pytest
from judged import problems, run_advice, says

from vqdoctor.checks._usage import COLLAPSED_USAGE
from vqdoctor.core.evidence import CollapseReward, Evidence, Usage
from vqdoctor.core.levels import Confidence

REWARD = CollapseReward.healthy(spread=1.8, one=0.4)


@pytest.mark.parametrize(
    ("evidence", "expected"),
    [
        ([REWARD], "warning"),
        ([REWARD, Usage.healthy()], "warning"),
        ([REWARD, COLLAPSED_USAGE], "error"),
        ([REWARD, Usage.healthy(perplexity=61.0, perplexity_low=60.0, perplexity_high=62.0)], "warning"),
        ([REWARD.replace(spread=0.4, one=1.8)], "passes"),
        ([REWARD.replace(spread=1.03, one=1.0)], "warning"),
        ([REWARD.replace(spread=1.01, one=1.0)], "passes"),
        ([REWARD.replace(reach=2e-4)], "warning"),
        ([REWARD.replace(reach=9e-5)], "passes"),
        ([REWARD.replace(spread=0.0, one=0.0)], "passes"),
    ],
)
def test_limits(evidence: list[Evidence], expected: str) -> None:
    assert says("VQ207", *evidence) == expected


def test_with_enough_codes_in_use_it_may_be_a_rate_term() -> None:
    (collapsed,), (works,) = (
        problems("VQ207", REWARD, usage) for usage in (COLLAPSED_USAGE, Usage.healthy())
    )
    assert (collapsed.confidence, works.confidence) == (Confidence.HIGH, Confidence.MEDIUM)
    assert "rate term" in works.message and "rate term" not in collapsed.message


def test_the_advice_rewards_many_codes() -> None:
    import torch

    one = torch.tensor([[0.0, 9.0, 9.0, 9.0]]).expand(8, 4)
    several = torch.stack([one[0].roll(i % 4) for i in range(8)])
    losses = [run_advice("VQ207", distances=d, commitment=torch.zeros(()))["vq_loss"] for d in (one, several)]
    assert losses[1] < losses[0]
