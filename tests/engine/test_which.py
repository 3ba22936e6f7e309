"""Which checkpoint is meant where none is named."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from vqdoctor.core.errors import UserError
from vqdoctor.engine import examine
from vqdoctor.engine.which import which_checkpoint


def which(folder: Path, report: Path | None = None, setting: Path | None = None) -> tuple[Path, str]:
    return which_checkpoint(report=report, setting=setting, folder=folder, command="vqdoctor fix")


def saved(path: Path) -> Path:
    torch.save({"vq.embedding.weight": torch.randn(8, 4)}, path)
    return path


def test_the_only_checkpoint_and_neither_outputs_nor_batches(tmp_path: Path) -> None:
    saved(tmp_path / "model.pt")
    saved(tmp_path / "model.fixed.pt")
    torch.save({"x": torch.zeros(3, 4)}, tmp_path / "batch.pt")
    torch.save({"z_e/vq": torch.zeros(3, 4)}, tmp_path / "dump.pt")
    np.savez(tmp_path / "data.npz", x=np.zeros(3))
    (tmp_path / "notes.txt").write_text("model.pt")
    assert which(tmp_path) == (Path("model.pt"), "the only checkpoint here")


def test_several_are_listed_as_full_commands(tmp_path: Path) -> None:
    for number in range(10):
        saved(tmp_path / f"{number}.ckpt")
    with pytest.raises(UserError) as error:
        which(tmp_path)
    assert "10 are here" in error.value.what
    assert "vqdoctor fix 0.ckpt | vqdoctor fix 1.ckpt" in error.value.hint
    assert error.value.hint.endswith("and 2 more")


def test_none(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is none here"):
        which(tmp_path)


def test_the_settings_win_over_the_folder_and_a_report_over_both(tmp_path: Path) -> None:
    one, two = saved(tmp_path / "1.pt"), saved(tmp_path / "2.pt")
    assert which(tmp_path, setting=two)[0] == two
    report = tmp_path / "report.json"
    report.write_text(examine(one).to_json())
    assert which(tmp_path, report=report, setting=two) == (one, f"named by {report}")


def test_a_report_that_moved_with_its_checkpoint(tmp_path: Path) -> None:
    saved(tmp_path / "1.pt")
    (tmp_path / "report.json").write_text(examine(tmp_path / "1.pt").to_json())
    shutil.copytree(tmp_path, elsewhere := tmp_path.with_name("elsewhere"))
    (tmp_path / "1.pt").unlink()
    assert which(tmp_path, report=elsewhere / "report.json")[0] == elsewhere / "1.pt"


@pytest.mark.parametrize("text", ["", "[]", "{}", "not json", json.dumps({"schema": 1}), "[" * 100_000])
def test_a_file_that_is_no_report(text: str, tmp_path: Path) -> None:
    (tmp_path / "report.json").write_text(text)
    with pytest.raises(UserError):
        which(tmp_path, report=tmp_path / "report.json")
    with pytest.raises(UserError, match="No such file"):
        which(tmp_path, report=tmp_path / "nowhere.json")
