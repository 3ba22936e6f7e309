"""`--decide` on really trained models: what takes the fault away helps, and on sound models nothing does.

`make accept` prints the table. VideoGPT style's counts start at zero, so that its codes blow up: that is
VQ304, and VQ301 where the counts start at one. The first five rows were looked at while the rules were made,
the others were not.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from fault_bench.host import BenchTask, save
from fault_bench.setup import Setup

from vqdoctor.core.evidence import Experiments
from vqdoctor.core.experiments import Effect, effects
from vqdoctor.core.levels import Severity
from vqdoctor.core.report import Report
from vqdoctor.core.settings import Settings, UserModel
from vqdoctor.engine import examine

pytestmark = pytest.mark.accept

LEFT_ALONE: dict[str, Any] = {"revival": False}
FAR: dict[str, Any] = {"revival": False, "data_init": False, "offset": 3.0}


@dataclass(frozen=True, kw_only=True)
class Case:
    """A training with a fault, the code of the fault, and the experiment that takes it away."""

    implementation: str
    code: str
    experiment: str
    data: str = "digits"
    seed: int = 0
    settings: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.experiment} on {self.implementation}"

    @property
    def setup(self) -> Setup:
        return Setup(implementation=self.implementation, data=self.data, seed=self.seed, **self.settings)


LABELLED, SEQUENCES = "digit-classes", "sequences"
CASES = (
    Case(implementation="VectorQuantize", code="VQ404", experiment="lower-rate",
         settings={**LEFT_ALONE, "learning_rate": 0.1}),
    Case(implementation="VectorQuantize", code="VQ201", experiment="lighter-vq-loss",
         settings={"vq_weight": 100.0}),
    Case(implementation="rosinality", code="VQ101", experiment="straight-through", data=SEQUENCES, seed=1,
         settings={"straight_through": False}),
    Case(implementation="taming", code="VQ403", experiment="shuffled-samples", data=SEQUENCES, seed=1,
         settings={"shuffled": False}),
    Case(implementation="rosinality", code="VQ301", experiment="codes-from-data", data=SEQUENCES, seed=1,
         settings=FAR),
    Case(implementation="diffusers", code="VQ101", experiment="straight-through",
         settings={"straight_through": False}),
    Case(implementation="zalando", code="VQ403", experiment="shuffled-samples", data=LABELLED,
         settings={"shuffled": False}),
    Case(implementation="VideoGPT style", code="VQ304", experiment="codes-from-data", data=SEQUENCES,
         settings=FAR),
    Case(implementation="own style", code="VQ301", experiment="codes-from-data", data=SEQUENCES,
         settings=FAR),
    Case(implementation="zalando", code="VQ404", experiment="lower-rate",
         settings={**LEFT_ALONE, "learning_rate": 0.05}),
)  # fmt: skip
SOUND = ("VectorQuantize", "ResidualVQ", "rosinality", "taming", "zalando", "VideoGPT style")


def decided(setup: Setup, folder: Path) -> tuple[Report, Report, tuple[Effect, ...]]:
    """Return the report without and with the experiments, and what they showed."""
    path = save(setup, folder / "model.pt")
    told = UserModel(task=BenchTask(setup))
    bare = examine(path, user_model=told)
    report = examine(path, user_model=told, settings=Settings(decide=True))
    layer = next((item.layer for item in report.evidence if isinstance(item, Experiments)), None)
    return bare, report, effects(report.evidence, layer)


def first(report: Report) -> str:
    return next((f.code for f in report.findings if f.severity > Severity.NOTE), "none")


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_change_that_takes_the_fault_away_helps(
    case: Case, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bare, report, found = decided(case.setup, tmp_path)
    helping = {e.removal.name: round(e.gain, 2) for e in found if e.helps and e.removal.codes}
    with capsys.disabled():
        print(f"\n{case}: {case.code}, first without {first(bare)}, with {first(report)}; helps {helping}")
    assert case.experiment in helping
    assert first(report) == case.code


@pytest.mark.parametrize("implementation", SOUND)
def test_on_a_sound_model_no_experiment_is_needed(implementation: str, tmp_path: Path) -> None:
    setup = Setup(implementation=implementation, data=SEQUENCES, seed=40)
    bare, report, found = decided(setup, tmp_path)
    assert [f.code for f in report.findings if f.severity > Severity.NOTE] == []
    assert [f.replace(rank=0) for f in report.findings if f.code != "VQ401"] == [
        f.replace(rank=0) for f in bare.findings if f.code != "VQ401"
    ]
    assert found == ()
