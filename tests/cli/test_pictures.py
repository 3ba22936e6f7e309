"""`-f html` and `--plots DIR`: one page that loads nothing, and the same pictures as files."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path

import pytest

from vqdoctor.cli import _plots
from vqdoctor.cli._plots import draw_into
from vqdoctor.cli.main import main
from vqdoctor.core.picture import Picture
from vqdoctor.core.report import LayerSummary, Report


def test_a_page_and_its_pictures_as_files(healthy: Path, tmp_path: Path) -> None:
    page, folder = tmp_path / "report.html", tmp_path / "new" / "plots"
    assert main(["inspect", str(healthy), "--save", f"html={page}", "--plots", str(folder)]) == 0
    text = page.read_text(encoding="utf-8")
    assert text.startswith("<!doctype html>") and text.count("<figure>") == text.count("<svg") == 3
    assert not re.search(r"(?:src|href)=\"(?!#)|@import|url\((?!#)", text)
    assert len(text) < 1_500_000
    written = sorted(file.name for file in folder.iterdir())
    assert written == [
        f"{name}-vq.{end}" for name in ("perplexity", "plane", "usage") for end in ("png", "svg")
    ]
    assert (folder / "usage-vq.png").read_bytes().startswith(b"\x89PNG")
    assert (folder / "usage-vq.svg").read_text(encoding="utf-8").startswith("<?xml")
    again = tmp_path / "again.html"
    assert main(["inspect", str(healthy), "--save", f"html={again}"]) == 0
    assert again.read_bytes() == page.read_bytes()


def test_files_of_strange_layers_and_several_reports_have_names_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("../../etc/x", "..-..-etc-x", "A" * 300, "$(rm)")
    layers = tuple(
        LayerSummary(name=name, layout="x", layout_confidence="high", num_codes=2, dim=2) for name in names
    )
    told = {
        "findings": (),
        "plan": (),
        "evidence": (),
        "unavailable": (),
        "outcomes": (),
        "verdict": "healthy",
    }
    report = Report(version="0", checkpoint=None, layers=layers, **told)  # type: ignore[arg-type]
    drawn = [
        Picture(name="usage", layer=name, title="", caption="", head=(), rows=(), svg="<svg/>", png=b"p")
        for name in names
    ]
    monkeypatch.setattr("vqdoctor.plots.pictures", lambda report, png: drawn)
    folder = tmp_path / "plots"
    folder.mkdir()
    draw_into(folder, [report, report])
    found = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.svg"))
    assert found == sorted(
        f"plots/{n}-usage-{name}.svg" for n in (1, 2) for name in ("etc-x", "etc-x-2", "A" * 80, "rm")
    )


@pytest.mark.parametrize("command", ["inspect", "fix", "gate"])
def test_the_folder_is_refused_before_the_long_work(
    command: str,
    healthy: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    file = tmp_path / "file"
    file.write_text("")
    assert main([command, str(healthy), "--plots", str(file)]) == 2
    assert f"--plots {file}" in capsys.readouterr().err
    monkeypatch.setattr(_plots.importlib.util, "find_spec", lambda name: None)
    assert main([command, str(healthy), "--plots", str(tmp_path / "plots")]) == 2
    assert "pip install 'vqdoctor[plots]'" in capsys.readouterr().err
    assert not (tmp_path / "plots").exists()


def test_without_matplotlib_a_page_has_its_tables(
    healthy: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert importlib.util.find_spec("matplotlib") is not None
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert main(["inspect", str(healthy), "-f", "html"]) == 0
    text = capsys.readouterr().out
    assert text.count("pip install &#x27;vqdoctor[plots]&#x27;") == 1
    assert text.count("<table>") >= 3 and "<svg" not in text
