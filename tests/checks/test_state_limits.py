"""The checks of a codebook's state just inside and just outside their limits."""

from __future__ import annotations

import pytest
from judged import problems, says

from vqdoctor.checks import all_checks
from vqdoctor.checks._usage import COLLAPSED_USAGE
from vqdoctor.core.evidence import (
    BatchMixing,
    CodeExpiry,
    EvalForward,
    Evidence,
    Initialisation,
    TrainForward,
    Usage,
    WeightDecay,
)
from vqdoctor.core.levels import Confidence

CHECKS = {check.code: check for check in all_checks()}
START, TRAIN, EVAL = Initialisation.healthy(), TrainForward.healthy(), EvalForward.healthy()
DECAY, EXPIRY, MIXING = WeightDecay.healthy(), CodeExpiry.healthy(), BatchMixing.healthy()
FRESH = START.replace(counts_written=False, stepped=None, updates=None, structure=0.7)
POOR = COLLAPSED_USAGE


@pytest.mark.parametrize(
    ("code", "evidence", "expected"),
    [
        # VQ305: far once; not where the start is still to come, or the EMA makes its first step
        ("VQ305", [TRAIN.replace(first_moved=0.51)], "error"),
        ("VQ305", [TRAIN.replace(first_moved=0.49)], "passes"),
        ("VQ305", [TRAIN.replace(first_moved=1.0, later_moved=0.5)], "error"),
        ("VQ305", [TRAIN.replace(first_moved=1.0, later_moved=0.51)], "passes"),
        ("VQ305", [TRAIN.replace(first_moved=1.3), START.replace(flag=False)], "cannot judge"),
        ("VQ305", [TRAIN.replace(first_moved=1.3), FRESH], "cannot judge"),
        (
            "VQ305",
            [TRAIN.replace(first_moved=1.3, writes_counts=None), START.replace(counts_written=None)],
            "error",
        ),
        # VQ306
        ("VQ306", [START.replace(identical_rows=256)], "error"),
        ("VQ306", [START.replace(identical_rows=255)], "passes"),
        ("VQ306", [START.replace(sample_size=1)], "passes"),
        ("VQ306", [START.replace(flag=True)], "passes"),
        ("VQ306", [START.replace(flag=False)], "error"),
        ("VQ306", [FRESH], "passes"),
        ("VQ306", [FRESH.replace(updates=0)], "error"),
        ("VQ306", [FRESH.replace(updates=0, stepped=True)], "passes"),
        ("VQ306", [FRESH.replace(stepped=False, structure=5.9)], "error"),
        ("VQ306", [FRESH.replace(stepped=False, structure=6.1)], "passes"),
        ("VQ306", [FRESH.replace(stepped=False, counts_written=True)], "passes"),
        ("VQ306", [FRESH.replace(stepped=False, frozen=True)], "passes"),
        ("VQ306", [FRESH, TRAIN], "error"),
        ("VQ306", [FRESH, TRAIN.replace(writes_counts=False)], "passes"),
        ("VQ306", [FRESH.replace(counts_written=None), TRAIN.replace(writes_counts=None)], "passes"),
        # VQ307: only a codebook is worth more than a note
        ("VQ307", [EVAL.replace(changed=("vq.counts",), changed_count=1)], "note"),
        ("VQ307", [EVAL.replace(changed=("vq.embed",), changed_count=1, codebook=True)], "error"),
        ("VQ307", [EVAL.replace(layer=None, changed=("steps",), changed_count=1)], "note"),
        # VQ308
        ("VQ308", [DECAY.replace(lost=0.51), POOR], "warning"),
        ("VQ308", [DECAY.replace(lost=0.51), Usage.healthy()], "note"),
        ("VQ308", [DECAY.replace(lost=0.49), POOR], "passes"),
        ("VQ308", [DECAY.replace(lost=None), POOR], "cannot judge"),
        ("VQ308", [DECAY.replace(lost=None, weight_decay=0.0), POOR], "passes"),
        ("VQ308", [DECAY.replace(lost=0.9, short_rows=129)], "warning"),
        ("VQ308", [DECAY.replace(lost=0.9, short_rows=128)], "note"),
        # VQ402: the threshold, the counts, or what is seen to be replaced
        ("VQ402", [EXPIRY.replace(threshold=1.57)], "warning"),
        ("VQ402", [EXPIRY.replace(threshold=1.56)], "passes"),
        ("VQ402", [EXPIRY.replace(replaced=0.51)], "warning"),
        ("VQ402", [EXPIRY.replace(replaced=0.49)], "passes"),
        ("VQ402", [EXPIRY.replace(threshold=1.0, expired=0.51)], "warning"),
        ("VQ402", [EXPIRY.replace(sample_size=100_000)], "passes"),
        ("VQ402", [EXPIRY.replace(source="checkpoint", replaced=None)], "cannot judge"),
        # VQ403: large and certain
        ("VQ403", [MIXING.replace(label_drift=0.21, label_z=5.1)], "warning"),
        ("VQ403", [MIXING.replace(label_drift=0.19, label_z=50.0)], "passes"),
        ("VQ403", [MIXING.replace(label_drift=0.9, label_z=4.9)], "passes"),
        ("VQ403", [MIXING.replace(code_drift=0.21, code_z=5.1)], "warning"),
        ("VQ403", [MIXING.replace(label_drift=-0.5, label_z=-30.0)], "passes"),
        ("VQ403", [MIXING.replace(label_drift=None, label_z=None, code_drift=None, code_z=None)], "passes"),
    ],
)
def test_limits(code: str, evidence: list[Evidence], expected: str) -> None:
    assert says(code, *evidence) == expected


def test_a_guess_from_the_file_is_less_sure_and_says_what_would_decide_it() -> None:
    for code, bare in (
        ("VQ308", [DECAY.replace(lost=1.0, short_rows=200)]),
        ("VQ402", [EXPIRY.replace(source="checkpoint", threshold=2.0, expired=0.9, replaced=None)]),
    ):
        (guess,) = problems(code, *bare)
        assert guess.confidence is Confidence.MEDIUM and guess.decide_with.startswith("--data")
    (seen,) = problems("VQ306", FRESH, TRAIN)
    assert seen.confidence is Confidence.HIGH
    (guess,) = problems("VQ306", FRESH.replace(stepped=False))
    assert guess.confidence is Confidence.MEDIUM
