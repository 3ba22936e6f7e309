"""VQ207 vq-loss-rewards-collapse just inside and just outside its limits."""

from __future__ import annotations

import pytest
from judged import run_advice, says

from vqdoctor.checks._usage import COLLAPSED_USAGE
from vqdoctor.core.evidence import CollapseReward, Evidence, Usage

REWARD = CollapseReward.healthy(spread=1.8, one=0.4)


@pytest.mark.parametrize(
    ("evidence", "expected"),
    [
        ([REWARD], "warning"),
        ([REWARD, Usage.healthy()], "warning"),
        ([REWARD, COLLAPSED_USAGE], "error"),
        ([REWARD.replace(spread=0.4, one=1.8)], "passes"),
        ([REWARD.replace(spread=1.03, one=1.0)], "warning"),
        ([REWARD.replace(spread=1.01, one=1.0)], "passes"),
        ([REWARD.replace(reach=0.009)], "passes"),
        ([REWARD.replace(spread=0.0, one=0.0)], "passes"),
    ],
)
def test_limits(evidence: list[Evidence], expected: str) -> None:
    assert says("VQ207", *evidence) == expected


def test_the_advice_rewards_many_codes() -> None:
    import torch

    one = torch.tensor([[0.0, 9.0, 9.0, 9.0]]).expand(8, 4)
    several = torch.stack([one[0].roll(i % 4) for i in range(8)])
    losses = [run_advice("VQ207", distances=d, commitment=torch.zeros(()))["vq_loss"] for d in (one, several)]
    assert losses[1] < losses[0]
