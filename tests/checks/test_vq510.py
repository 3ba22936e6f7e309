"""VQ510: hand-made evidence just inside and outside its limits, and really trained models beside a twin."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from judged import run_advice, says
from state_models import CODES, GradientVQ, Task, found, live, saved

from vqdoctor.core.evidence import Evidence, OptimizerMemory, TrainingRecord, Usage, WeightDecay
from vqdoctor.core.levels import Severity
from vqdoctor.engine import examine

FEW = OptimizerMemory.healthy(codebook_listed=True, codebook_has_state=True, codebook_untouched_rows=154)
AGED, SHORT = FEW.replace(codebook_untouched_rows=20), WeightDecay.healthy(updates=900)
DECAY, RECORD = WeightDecay.healthy(updates=4_096), TrainingRecord.healthy(batch_size=None)

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize(
    ("evidence", "expected"),
    [
        ([FEW.replace(codebook_untouched_rows=153), DECAY], "passes"),
        ([FEW, DECAY], "warning"),
        # the perplexity is at most the number of codes with a gradient, and VQ501 asks for 50 of 256
        ([FEW.replace(codebook_untouched_rows=206), DECAY], "warning"),
        ([FEW.replace(codebook_untouched_rows=207), DECAY], "error"),
        ([FEW, DECAY, RECORD], "warning"),
        ([FEW, DECAY, Usage.healthy()], "cannot judge"),
        ([FEW], "cannot judge"),
        ([FEW.replace(codebook_untouched_rows=None), DECAY], "cannot judge"),
        # the loss of the codes reaches none of them: another cause, and no usage
        ([FEW.replace(codebook_untouched_rows=256), DECAY], "cannot judge"),
        # at least 16 choices a code: one an update, or a batch of samples where it is known
        ([FEW, DECAY.replace(updates=None)], "cannot judge"),
        ([FEW, DECAY.replace(updates=4_095)], "cannot judge"),
        ([FEW, DECAY.replace(updates=256), RECORD.replace(batch_size=16)], "warning"),
        ([FEW, DECAY.replace(updates=255), RECORD.replace(batch_size=16)], "cannot judge"),
        # fewer choices, but of so few codes that those which they missed by chance are no usage either
        ([FEW.replace(codebook_untouched_rows=251), DECAY.replace(updates=660)], "error"),
        ([FEW.replace(codebook_untouched_rows=240), DECAY.replace(updates=660)], "error"),
        ([FEW.replace(codebook_untouched_rows=251), DECAY.replace(updates=20)], "cannot judge"),
        ([FEW.replace(codebook_untouched_rows=215), DECAY.replace(updates=660)], "cannot judge"),
        # how long ago the last gradient was: rare codes would be between 100 and 400 updates as well
        ([AGED.replace(recent_codes=93, recent_codes_high=102), SHORT], "warning"),
        ([AGED.replace(recent_codes=100, recent_codes_high=103), SHORT], "passes"),
        ([AGED.replace(recent_codes=34, recent_codes_high=49), SHORT], "error"),
        ([AGED.replace(recent_codes=34, recent_codes_high=55), SHORT], "passes"),
        # a codebook that was frozen long ago: no code is recent, and all were in use
        ([AGED.replace(recent_codes=0, recent_codes_high=0), SHORT], "passes"),
        # one vector in each update, evenly spread over many codes
        ([AGED.replace(recent_codes=9, recent_codes_high=27), SHORT], "passes"),
        ([FEW, DECAY.replace(updates=0)], "cannot judge"),
    ],
)
def test_limits(evidence: list[Evidence], expected: str) -> None:
    assert says("VQ510", *evidence) == expected


class Far(GradientVQ):
    """Most codes lie where no vector comes."""

    def __init__(self) -> None:
        super().__init__()
        with torch.no_grad():
            self.embedding[CODES // 4 :] += 50


class Near(GradientVQ):
    """Every code lies among the vectors of a batch."""

    def __init__(self) -> None:
        super().__init__()
        with torch.no_grad():
            self.embedding.mul_(0.3)


@pytest.mark.parametrize(("vq", "expected"), [(Far, {"VQ510": Severity.WARNING}), (Near, {})])
def test_a_gradient_codebook_in_a_bare_file(
    tmp_path: Path, vq: type[GradientVQ], expected: dict[str, Severity]
) -> None:
    task = Task(vq)
    path = saved(tmp_path, task, 1100)
    bare = examine(path)
    assert found(bare, "VQ510") == expected
    assert (bare.verdict == "at-risk") is bool(expected)
    whole = live(path, task)
    assert found(whole, "VQ510") == {}, "where the usage is known it is judged instead"
    assert bool(found(whole, "VQ501", "VQ502")) is bool(expected)
    usage, memory = whole.find(Usage, "vq"), bare.find(OptimizerMemory, "vq")
    assert usage is not None and memory is not None
    least, most = memory.recent_codes, memory.recent_codes_high
    assert least is not None and most is not None
    assert least - 1 <= usage.used <= most + 1 and usage.perplexity <= most
    (gap,) = [item for item in bare.unavailable if item.kind == "usage"]
    assert "codes were chosen lately" in gap.reason and f"(perplexity 1 to {most})" in gap.reason


def test_a_short_training_accuses_no_code(tmp_path: Path) -> None:
    assert found(examine(saved(tmp_path, Task(Far), 60)), "VQ510") == {}


def test_the_advice_moves_the_codes_without_a_choice_and_no_others() -> None:
    codebook = torch.nn.Parameter(torch.zeros(4, 2))
    chosen, z_e = torch.zeros(4, dtype=torch.long), torch.ones(9, 2)
    run_advice("VQ510", codebook=codebook, chosen=chosen, indices=torch.tensor([[0, 2], [2, 0]]), z_e=z_e)
    assert codebook.tolist() == [[0, 0], [1, 1], [0, 0], [1, 1]]
    assert chosen.tolist() == [0, 0, 0, 0]
