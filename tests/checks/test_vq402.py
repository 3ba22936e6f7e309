"""VQ402: hand-made evidence just inside and outside its limits, and really trained models beside a twin."""

from __future__ import annotations

from pathlib import Path

import pytest
from judged import problems, run_advice, says
from state_models import CODES, DIM, OURS, Task, found, live, saved
from vector_quantize_pytorch import VectorQuantize

from vqdoctor.core.evidence import CodeExpiry, Evidence
from vqdoctor.core.levels import Confidence, Severity
from vqdoctor.engine import examine

EXPIRY = CodeExpiry.healthy()

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize(
    ("evidence", "expected"),
    [
        # the threshold, the counts, or what is seen to be replaced
        ([EXPIRY.replace(threshold=1.57)], "warning"),
        ([EXPIRY.replace(threshold=1.56)], "passes"),
        ([EXPIRY.replace(replaced=0.41)], "error"),  # 256 codes, all new after three steps
        ([EXPIRY.replace(threshold=2.0, replaced=0.39)], "warning"),  # a batch of just the threshold
        ([EXPIRY.replace(sample_size=2_041, replaced=0.51)], "warning"),  # after 10.005
        ([EXPIRY.replace(sample_size=2_039, replaced=0.51)], "error"),
        ([EXPIRY.replace(replaced=0.4)], "passes"),
        ([EXPIRY.replace(threshold=1.0, expired=0.51)], "warning"),
        ([EXPIRY.replace(sample_size=100_000)], "passes"),
        ([EXPIRY.replace(source="checkpoint", replaced=None)], "cannot judge"),
    ],
)
def test_limits(evidence: list[Evidence], expected: str) -> None:
    assert says("VQ402", *evidence) == expected


def test_a_guess_from_the_file_is_less_sure_and_says_what_would_decide_it() -> None:
    bare = EXPIRY.replace(source="checkpoint", threshold=2.0, expired=0.9, replaced=None)
    (guess,) = problems("VQ402", bare)
    assert guess.confidence is Confidence.MEDIUM and guess.decide_with.startswith("--data")


def test_a_batch_of_our_own_size_is_not_told_as_theirs() -> None:
    (theirs,) = problems("VQ402", EXPIRY.replace(threshold=2.0))
    (ours,) = problems("VQ402", EXPIRY.replace(threshold=2.0, assumed_batch_size=64))
    assert theirs.confidence is Confidence.HIGH and "a batch has 400 vectors" in theirs.message
    assert ours.confidence is Confidence.MEDIUM and ours.decide_with == "--task FILE.py:NAME"
    assert "a batch of 64 samples, which is our guess, has 400 vectors" in ours.message


@pytest.mark.parametrize(("threshold", "fires"), [(4.0, True), (0.2, False)])
def test_a_fixed_threshold_above_the_mean_count(tmp_path: Path, threshold: float, fires: bool) -> None:
    """144 vectors for 64 codes: 2.25 a code. The replacement itself is measured in a live model alone."""
    task = Task(lambda: VectorQuantize(dim=DIM, codebook_size=CODES, threshold_ema_dead_code=threshold))
    path = saved(tmp_path, task, 120)
    bare, whole = examine(path), live(path, task)
    assert found(bare, *OURS) == ({"VQ402": Severity.WARNING} if fires else {})
    assert found(whole, *OURS) == ({"VQ402": Severity.ERROR} if fires else {})
    if fires:
        (finding,) = (f for f in whole.findings if f.code == "VQ402")
        values = {m.name: m.value for m in finding.measurements}
        assert values["per_threshold"] == pytest.approx(144 / 64 / 4)


def test_a_relative_threshold_is_under_the_mean_count_whatever_the_batch() -> None:
    for vectors, codes in ((16, 1024), (1_200, 4_096), (100_000, 64)):
        done = run_advice("VQ402", vectors_per_batch=vectors, num_codes=codes)
        assert done["threshold"] == pytest.approx(0.1 * vectors / codes)
