"""The stages of the chain, on and off: the cells, the figures of a chain, the report, a real small study."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from vqdoctor.cli.main import main
from vqdoctor.core.ablation import AblationFigures, CodebookFigures, Run, StageFigures, Study
from vqdoctor.core.codec import decode, encode
from vqdoctor.core.errors import UserError
from vqdoctor.core.settings import Settings, UserModel
from vqdoctor.engine.ablate.cells import STEPS, lay_out_stages
from vqdoctor.engine.ablate.subject import STAGES, Subject
from vqdoctor.engine.plan import make_plan
from vqdoctor.reference.chain.measure import StageMeter
from vqdoctor.reference.chain.model import ChainClassifier
from vqdoctor.reference.chain.segments import viterbi
from vqdoctor.reference.chain.sequences import stitch
from vqdoctor.render import ablation_csv, ablation_markdown, ablation_text

MOTION = Path(__file__).parents[2] / "sample_checkpoints" / "motion.npz"
NAMES = ["no stage", "HDP", "HSMM", "HDP + HSMM", "VQ", "VQ + HDP", "VQ + HSMM", "VQ + HDP + HSMM"]


def laid_out() -> Study:
    plan = make_plan((), ("vq",), Settings(epochs=7), trained_vq_weight=0.1)
    cells, trainings = lay_out_stages(plan, STAGES, 7)
    assert all(training.plan.epochs == 7 for training in trainings.values())
    return Study(
        versions={}, subject="the chain", identity="one", epochs=7, seeds=(0,), threads=1, device="cpu",
        vq_weight=0.1, cells=cells,
    )  # fmt: skip


def test_eight_cells_of_eight_trainings() -> None:
    study = laid_out()
    assert [cell.name for cell in study.cells] == NAMES
    assert [cell.without_vq for cell in study.cells] == [True] * 4 + [False] * 4
    assert len({cell.run for cell in study.cells}) == 8
    assert {cell.remedies for cell in study.cells} == {STEPS}
    assert [cell.model for cell in study.cells[:4]] == [cell.model for cell in study.cells[4:]] == [*STAGES]


def with_figures(study: Study) -> Study:
    """Each stage costs its own share of the accuracy: VQ 0.02, HDP 0.3; HSMM brings 0.1."""
    runs = []
    for cell in study.cells:
        named = cell.name.split(" + ")
        accuracy = 0.7 - 0.02 * ("VQ" in named) - 0.3 * ("HDP" in named) + 0.1 * ("HSMM" in named)
        hdp, hsmm = "HDP" in named, "HSMM" in named
        stages = StageFigures(
            true_length=23.4, length=4.1, clusters_used=9 if hdp else None, states_used=6 if hsmm else None,
            state_length=19.6 if hsmm else None, expected_duration=17.5 if hsmm else None,
        )  # fmt: skip
        layers = {"vq": CodebookFigures(num_codes=64, perplexity=44.0, active=60, expected_active=64.0)}
        figures = AblationFigures(
            loss=1.0, samples=6400, accuracy=accuracy, parameters=17_000, stages=stages,
            layers=layers if "VQ" in named else {},
        )  # fmt: skip
        runs.append(Run(run=cell.run, seed=0, figures=figures))
    return replace(study, runs=tuple(runs))


def test_the_report_has_the_stages_and_their_cost() -> None:
    study = with_figures(laid_out())
    text = ablation_markdown(study)
    assert "| VQ + HDP + HSMM | 0.480 | 44 | 9 | 6 | 4.1 | 19.6 | 17.5 | 23.4 |" in text
    assert "| no stage | 0.700 | – | – | – | 4.1 | – | – | 23.4 |" in text
    for stage, without, alone in (("VQ", 0.5, 0.68), ("HDP", 0.78, 0.4), ("HSMM", 0.38, 0.8)):
        told = f"{stage}: accuracy 0.480 with all stages and {without:.3f} without this one; {alone:.3f} with"
        assert told in text and told in ablation_text(study, 200)
    assert "perplexity" not in ablation_text(study, 200).splitlines()[1]  # no cure is expected of a stage
    header, first = ablation_csv(study).splitlines()[:2]
    assert dict(zip(header.split(","), first.split(","), strict=True))["true_length"] == "23.4"
    assert decode(Study, encode(study), "study") == study


def test_a_study_without_all_cells_tells_what_is_there() -> None:
    study = with_figures(laid_out())
    assert "with all stages" not in ablation_markdown(replace(study, runs=study.runs[:3]))
    assert "## Stages" not in ablation_markdown(replace(study, runs=()))


def test_the_figures_of_a_chain_agree_with_its_outputs() -> None:
    torch.manual_seed(0)
    model = ChainClassifier().eval()
    labels = np.array([[0, 0, 1, 1, 1, 2, 2, 2, 2, 2]] * 4)
    meter, x = StageMeter(model), torch.randn(4, 3, 2, 40)
    with torch.no_grad(), meter.watching():
        output = [model(part) for part in (x[:3], x[3:])]
    found = meter.figures(labels.ravel())
    assert found.true_length == 2.5
    paths = torch.cat([viterbi(part["scores"])[0] for part in output])
    runs = [
        len(run) for path in paths.tolist() for run in _ended(path)
    ]  # each that ends before the sequence does
    assert found.state_length == pytest.approx(np.mean(runs) if runs else 10)
    assert found.states_used == len(set(paths.flatten().tolist()))
    assert 1 < found.expected_duration < 48
    model(x)
    assert meter.figures(labels.ravel()) == found  # it looks no longer


def _ended(path: list[int]) -> list[list[int]]:
    runs = [[path[0]]]
    for state in path[1:]:
        if state == runs[-1][-1]:
            runs[-1].append(state)
        else:
            runs.append([state])
    return runs[:-1]


def test_a_model_of_the_users_has_no_such_stages(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="built-in chain"):
        Subject(path=tmp_path / "a.pt", user_model=UserModel(), settings=Settings(stages=True))


def test_other_data_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "digits.npz", x=np.zeros((4, 1, 8, 8)), y=np.zeros(4, dtype=np.int64))
    settings = Settings(stages=True, data=(tmp_path / "digits.npz",))
    with (
        pytest.raises(UserError, match=r"not sequences.*--data motion, or leave"),
        Subject(path=None, user_model=UserModel(), settings=settings).open(),
    ):
        pass
    with pytest.raises(UserError, match="sequences, and no images"):
        Subject(path=None, user_model=UserModel(), settings=Settings(stages=True, data=(Path("digits"),)))


@pytest.mark.accept
def test_a_small_study(tmp_path: Path) -> None:
    with np.load(MOTION) as file:
        sequences = stitch(file, step=4)
    few = {name: np.concatenate([a[:32], a[240:256], a[-16:]]) for name, a in sequences.items()}
    np.savez(tmp_path / "few.npz", **few)
    out = tmp_path / "out"
    options = ["--data", str(tmp_path / "few.npz"), "--epochs", "1", "--seeds", "1", "--out", str(out)]
    assert main(["ablate", "--stages", *options]) == 0
    study = json.loads((out / "ablation_results.json").read_text())
    assert [cell["name"] for cell in study["cells"]] == NAMES
    assert not [run["failed"] for run in study["runs"] if run["failed"]]
    for run in study["runs"]:
        stages = run["figures"]["stages"]
        assert ("hdp" in run["run"]) == (stages["clusters_used"] is not None)
        assert ("hsmm" in run["run"]) == (stages["states_used"] is not None)
        assert ("vq" in run["run"]) == bool(run["figures"]["layers"])
