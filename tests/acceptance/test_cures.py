"""`fix --retrain`: the cure of every fault on fresh seeds, of users' models, and of the shipped samples.

`make accept` prints the tables. As many remedies drawn at random stand beside each cure, with the same
budget and the same goals: a repair tool that they match has proven nothing.
"""

from __future__ import annotations

import json
import time
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fault_bench.cures import Case, Cure, cured
from fault_bench.data import DIGITS
from fault_bench.setup import Setup
from processes import python

from vqdoctor.core.report import Report
from vqdoctor.reference.recipes import ON_MOTION, SAMPLES

pytestmark = pytest.mark.accept

FAULTS = tuple(name for name in SAMPLES if not name.startswith("healthy") and name not in ON_MOTION)
SEEDS = range(201, 211)
TOLERANCE = 0.015
"""By how much the mean accuracy of the cured may stay behind the mean without VQ."""

PLAIN = {"data_init": False, "revival": False}
USERS = {
    "no-ste": ({"straight_through": False}, {"straight_through": True}),
    "overweighted": ({"vq_weight": 100.0, **PLAIN}, {"vq_weight": 0.1}),
    "dead-codes": ({"codes": 512, **PLAIN}, {}),
}
IMPLEMENTATIONS = ("VectorQuantize", "taming", "rosinality")


@pytest.fixture(scope="module")
def folder(request: pytest.FixtureRequest) -> Path:
    cache = request.config.cache
    assert cache is not None
    return Path(cache.mkdir("cures"))


def table(cases: list[Case], folder: Path, capsys: pytest.CaptureFixture[str]) -> list[tuple[Case, Cure]]:
    rows = []
    with capsys.disabled():
        print()
        for case, cure in cured(cases, folder):
            rows.append((case, cure))
            print(cure.line(case), flush=True)
        cures = [cure for _, cure in rows]
        tried = [cure.at_random for cure in cures if cure.at_random is not None]
        by_chance = f"; by five remedies drawn at random {sum(tried)} of {len(tried)}" if tried else ""
        print(f"cured {sum(cure.cured for cure in cures)} of {len(cures)}{by_chance}")
    return rows


def test_every_fault_on_fresh_seeds(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cases = [Case(name=name, seed=seed) for seed in SEEDS for name in FAULTS]
    cases += [Case(name=name, seed=seed, codes=512) for seed in SEEDS[:5] for name in ("no-ste", "masked")]
    rows = table(cases, folder, capsys)
    assert {(cure.bare_exit, cure.mended_exit) for _, cure in rows if cure.cured} == {(0, 0)}
    behind = defaultdict(list)
    for case, cure in rows:
        assert cure.perplexity >= 130 / 256 * cure.codes
        assert cure.active >= 0.8
        assert cure.ece < 0.05
        behind[case.name, cure.codes].append(cure.without_vq - cure.accuracy)
    for which, gaps in behind.items():
        with capsys.disabled():
            print(f"{which[0]}, K {which[1]}: mean accuracy {-np.mean(gaps):+.4f} of that without VQ")
        assert np.mean(gaps) <= TOLERANCE
    assert np.mean([cure.cured for _, cure in rows]) >= 0.98


def test_users_models(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What the plan does not cure is retrained with --trial, as its report says."""
    cases = [
        Case(
            name=name,
            seed=0,
            setup=Setup(implementation=implementation, data="digit-classes", **sick),
            healthy=tuple(healthy.items()),
        )
        for implementation in IMPLEMENTATIONS
        for name, (sick, healthy) in USERS.items()
    ]
    rows = table(cases, folder, capsys)
    missed = [replace(case, trial=True) for case, cure in rows if not cure.cured]
    tried = table(missed, folder, capsys)
    assert all(cure.cured for _, cure in tried)
    assert {cure.mended_exit for _, cure in (*rows, *tried)} == {0}
    assert all(cure.cured for _, cure in rows)


@pytest.mark.parametrize("name", FAULTS)
def test_a_sample_by_its_command(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sample, output, saved = DIGITS.with_name(f"{name}.pt"), tmp_path / "fixed.pt", tmp_path / "report.json"
    command = ["-m", "vqdoctor", "fix", sample, "--retrain", "-o", output]
    started = time.monotonic()
    done = python(*command, "--save", f"json={saved}")
    seconds = time.monotonic() - started
    assert done.returncode == 0, done.stderr
    report = Report.from_dict(json.loads(saved.read_text()))
    assert report.retraining is not None and report.retraining.after is not None
    after = report.retraining.after
    (layer,) = after.layers.values()
    with capsys.disabled():
        print(
            f"\nfix {sample.name} --retrain: {seconds:.0f} s, perplexity {layer.perplexity:.0f} of "
            f"{layer.num_codes}, active {layer.active_share:.0%} of the expected, accuracy "
            f"{after.accuracy:.3f}, ECE {after.ece:.3f}"
        )
    assert seconds < 240
    assert layer.perplexity >= 130 / 256 * layer.num_codes
    assert layer.active_share >= 0.8
    assert after.accuracy is not None and after.accuracy >= 0.94
    assert after.ece is not None and after.ece < 0.05
