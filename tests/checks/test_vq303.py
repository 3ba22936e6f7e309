"""VQ303: hand-made evidence just inside and outside its limits, and really trained models beside a twin."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from judged import says
from state_models import OURS, EmaVQ, Task, found, live, saved, trained

from vqdoctor.core.evidence import CodebookGradient, EmaState, Evidence
from vqdoctor.core.levels import Severity
from vqdoctor.engine import examine

EMA = EmaState.healthy()
LEARNED = CodebookGradient.healthy(trainable=True, ema_owned=False, gradient=0.3)

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize(
    ("evidence", "expected"),
    [
        ([EMA.replace(sums_disagreement=0.06)], "warning"),
        ([EMA.replace(sums_disagreement=0.04)], "passes"),
        ([EMA.replace(sums_disagreement=0.15, blurred=True)], "cannot judge"),
        ([EMA.replace(never_written=True, sums_disagreement=1.4)], "cannot judge"),
        ([EMA.replace(sums_disagreement=None, compared_rows=0)], "cannot judge"),
        # an EMA that is switched off, beside a loss that trains the codes
        ([EMA.replace(sums_disagreement=0.99), LEARNED], "cannot judge"),
        ([EMA.replace(sums_disagreement=0.99), LEARNED.replace(ema_owned=True)], "warning"),
        ([EMA.replace(sums_disagreement=0.99), LEARNED.replace(gradient=None)], "warning"),
    ],
)
def test_limits(evidence: list[Evidence], expected: str) -> None:
    assert says("VQ303", *evidence) == expected


def test_codes_rewritten_by_hand_disagree_with_their_sums(tmp_path: Path) -> None:
    task = Task(lambda: EmaVQ(own_init=True))
    whole = trained(task, 120)
    assert found(examine(saved(tmp_path, task, 120)), "VQ303") == {}
    whole["model"]["vq.embedding"] = whole["model"]["vq.embedding"].flip(0)
    torch.save(whole, tmp_path / "edited.pt")
    for report in (examine(tmp_path / "edited.pt"), live(tmp_path / "edited.pt", task)):
        assert found(report, "VQ303", *OURS) == {"VQ303": Severity.WARNING}
