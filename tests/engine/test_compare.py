"""Checkpoints side by side: their order, what moved, and when a finding began."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from vqdoctor.cli.main import app
from vqdoctor.core.comparison import Comparison
from vqdoctor.core.errors import UserError
from vqdoctor.engine import examine
from vqdoctor.engine.compare import compare
from vqdoctor.plots import comparison_pictures
from vqdoctor.render import COMPARISON_FORMATS, RenderOptions

K, D = 64, 8


def save(path: Path, step: int, live: int = K, shift: float = 0.0) -> Path:
    """Save an EMA layer of which so many codes live, and the first was moved."""
    rng = np.random.default_rng(0)
    codes = torch.from_numpy(rng.standard_normal((K, D)).astype(np.float32))
    codes[0] += shift
    counts = torch.full((K,), 1e-3)
    counts[:live] = 20 + torch.from_numpy(rng.random(live).astype(np.float32))
    state = {"vq._codebook.embed": codes[None], "vq._codebook.cluster_size": counts[None]}
    state["vq._codebook.embed_avg"] = (codes * counts[:, None])[None]
    state["vq._codebook.initted"] = torch.tensor([True])
    torch.save({"model": state, "global_step": step}, path)
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that is saved out of order, and collapses at its third checkpoint."""
    folder = tmp_path_factory.mktemp("run")
    for step, live in ((4000, 2), (1000, K), (3000, 2), (2000, K)):
        save(folder / f"step{step}.pt", step, live, shift=step / 1000)
    return folder


@pytest.fixture(scope="module")
def compared(run: Path) -> Comparison:
    return compare([str(run)], reference=run / "step1000.pt")


def test_rows_are_in_the_order_of_their_steps(compared: Comparison) -> None:
    assert [row.step for row in compared.rows] == [1000, 2000, 3000, 4000]
    assert [row.dead for row in compared.rows] == [0, 0, K - 2, K - 2]


def test_a_collapse_began_where_it_was_first_seen(compared: Comparison) -> None:
    collapse = next(began for began in compared.began if began.code == "VQ501")
    assert (collapse.step, Path(collapse.last).name) == (3000, "step4000.pt")
    assert compared.rows[1].finding != "VQ501"


def test_the_codes_that_moved_are_counted(compared: Comparison) -> None:
    assert [row.moved_codes for row in compared.rows] == [None, 1, 1, 1]
    assert [row.moved_from_reference for row in compared.rows] == [0, 1, 1, 1]
    way = [row.from_reference for row in compared.rows]
    assert way[3] == pytest.approx(3 * way[1], rel=1e-5)  # type: ignore[operator]


def test_the_codes_that_moved_farthest_are_named(compared: Comparison) -> None:
    assert [[moved.code for moved in row.farthest] for row in compared.rows] == [[], [0], [0], [0]]
    assert compared.rows[3].farthest[0].way > 0.5
    told = COMPARISON_FORMATS["rich"](compared, RenderOptions())
    assert "1 of 64 codes of vq moved in step4000.pt; farthest: 0 by" in told


def test_a_saved_report_stands_in_for_its_checkpoint(run: Path, tmp_path: Path) -> None:
    saved = tmp_path / "report.json"
    saved.write_text(examine(run / "step3000.pt").to_json())
    found = compare([str(saved), str(run / "step4000.pt")])
    assert [row.step for row in found.rows] == [3000, 4000]
    assert found.rows[0].active == found.rows[1].active == 2 and found.rows[1].moved is None


def test_every_format_shows_every_checkpoint(compared: Comparison) -> None:
    texts = {name: write(compared, RenderOptions()) for name, write in COMPARISON_FORMATS.items()}
    for text in texts.values():
        assert all(f"step{step}.pt" in text for step in (1000, 2000, 3000, 4000))
    rows = list(csv.DictReader(io.StringIO(texts["csv"])))
    assert [int(row["dead"]) for row in rows] == [0, 0, K - 2, K - 2]
    assert json.loads(texts["json"])["rows"][2]["finding"] == compared.rows[2].finding
    assert "VQ501" in texts["rich"] and "from step 3,000 on" in texts["markdown"]


def test_a_frozen_codebook_that_moved_is_an_error(tmp_path: Path) -> None:
    files = []
    for number in range(2):
        state = {
            "vq.frozen_codebook": torch.randn(K, D, generator=torch.Generator().manual_seed(number)),
            "vq.code_transform.weight": torch.eye(D),
        }
        files.append(tmp_path / f"{number}.pt")
        torch.save(state, files[-1])
    found = compare([str(files[1])], reference=files[0])
    assert len(found.errors) == 1 and "64 of 64 rows of the frozen table of vq moved" in found.errors[0]
    result = CliRunner().invoke(app, ["compare", str(files[1]), "--reference", str(files[0])])
    assert result.exit_code == 1
    twins = compare([str(files[1]), str(files[1])])
    assert twins.errors == ()


def test_a_single_name_that_leads_nowhere_is_not_called_a_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        compare([str(tmp_path / "none.pt")])


def test_the_files_of_several_processes_agree_or_not(tmp_path: Path) -> None:
    for step in (100, 200):
        for rank in range(3):
            moved = 2.0 * rank if step == 200 else 0.0
            save(tmp_path / f"step{step}_rank{rank}.pt", step, shift=1.0 + moved)
    found = compare([str(tmp_path)])
    assert [(r.step, r.files, r.differing, r.codes) for r in found.ranks] == [(100, 3, 0, 0), (200, 3, 2, 1)]
    assert [row.rank for row in found.rows] == [0, 1, 2] * 2
    assert [row.moved_codes for row in found.rows] == [None] * 3 + [0, 1, 1]  # each since its own last file
    told = COMPARISON_FORMATS["markdown"](found, RenderOptions())
    assert "The 3 processes of step100_rank#.pt have the same codebook in vq." in told
    assert "disagree in vq (VQ109): 2 have another codebook than the first, with up to 1 other code" in told


def test_a_file_of_one_process_has_none_to_agree_with(tmp_path: Path) -> None:
    for step in (100, 200):
        save(tmp_path / f"step{step}_rank0.pt", step)
    assert compare([str(tmp_path)]).ranks == ()


def test_the_picture_has_the_figures_and_where_a_cause_begins(
    compared: Comparison, run: Path, tmp_path: Path
) -> None:
    usage, movement = comparison_pictures(compared)
    assert [row[0] for row in usage.rows] == [1000, 2000, 3000, 4000] and usage.rows == movement.rows
    assert [row[4] for row in usage.rows] == [row.active for row in compared.rows]
    root = next(began.code for began in compared.began if began.root)
    assert [root in str(row[-1]) for row in usage.rows] == [False, False, True, False]
    assert f">{root}" in usage.svg and f">{root}" in movement.svg
    folder = tmp_path / "plots"
    result = CliRunner().invoke(app, ["compare", str(run), "--plots", str(folder)])
    names = [f"comparison-{name}-vq.{end}" for name in ("movement", "usage") for end in ("png", "svg")]
    assert result.exit_code == 0 and sorted(file.name for file in folder.iterdir()) == names


def test_without_steps_the_checkpoints_are_drawn_in_their_order(compared: Comparison) -> None:
    rows = tuple(replace(row, step=None) for row in compared.rows)
    usage, _ = comparison_pictures(replace(compared, rows=rows))
    assert [row[0] for row in usage.rows] == [1, 2, 3, 4] and "in their order" in usage.head[0]
    assert comparison_pictures(replace(compared, rows=rows[:1])) == ()


def test_one_checkpoint_has_nothing_to_be_compared_with(run: Path) -> None:
    with pytest.raises(UserError, match="nothing to compare"):
        compare([str(run / "step1000.pt")])


def test_the_command_ends_with_0(run: Path) -> None:
    result = CliRunner().invoke(app, ["compare", str(run), "-f", "csv"])
    assert result.exit_code == 0 and result.output.startswith("path,step,layer")


def test_an_unknown_usage_is_not_called_sound(tmp_path: Path) -> None:
    for step in (1, 2):
        torch.save({"vq.embedding.weight": torch.randn(K, D), "global_step": step}, tmp_path / f"{step}.pt")
    told = COMPARISON_FORMATS["rich"](compare([str(tmp_path)]), RenderOptions())
    assert "usage is unknown in 2 of 2 rows" in told
