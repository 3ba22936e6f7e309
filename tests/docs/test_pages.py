"""README and the pages of docs/ agree with the code: tables, links, options, settings and examples."""

from __future__ import annotations

import copy
import re
from pathlib import Path

import pytest
import torch
from pages import PAGES, ROOT, SAMPLES, command_help, filled, handwritten

import vqdoctor
from vqdoctor.cli.main import main
from vqdoctor.core.experiments import REMOVALS

COMMANDS = ("inspect", "fix", "gate", "compare", "ablate", "watch", "init", "explain", "checks")
FOREIGN_OPTIONS = {"--extra-index-url", "--nproc-per-node"}
"""Options in the pages that belong to another program."""


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", handwritten(page), re.MULTILINE | re.DOTALL)


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub makes of a page's headings."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES)
def test_the_generated_parts_are_fresh(page: str) -> None:
    assert filled(page) == (ROOT / page).read_text(), "run `make docs`"


def test_every_page_is_known_and_readme_leads_to_it() -> None:
    found = {f"docs/{file.name}" for file in (ROOT / "docs").iterdir()}
    assert found == PAGES.keys() - {"README.md"}
    readme = (ROOT / "README.md").read_text()
    assert [page for page in found if f"]({page})" not in readme] == []


@pytest.mark.parametrize("page", [*PAGES, "CONTRIBUTING.md"])
def test_every_link_leads_somewhere(page: str) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", (ROOT / page).read_text()):
        if target.startswith("https://"):
            continue
        name, _, anchor = target.partition("#")
        file = (ROOT / page).parent / name if name else ROOT / page
        assert file.is_file(), target
        assert not anchor or anchor in anchors(file), target


@pytest.mark.parametrize("page", PAGES)
def test_every_option_exists(page: str) -> None:
    options = {c: set(re.findall(r"(?<![\w-])--?[a-z][\w-]*", command_help(c))) for c in COMMANDS}
    text = handwritten(page)
    lines = [line for block in blocks(page, "(?:sh)?") for line in block.splitlines()]
    for line in lines:
        words = line.partition(" #")[0].split()
        if words[:1] == ["vqdoctor"]:
            given = {word for word in words if re.match(r"--?[a-z]", word)}
            assert given <= options[words[1]], line
    known = set.union(*options.values()) | FOREIGN_OPTIONS
    assert {word for word in re.findall(r"(?<![\w-])--[a-z][\w-]*", text) if word not in known} == set()


def test_readme_is_a_guide() -> None:
    """Long enough to lead from the install to the gate, and short enough to be read in one go."""
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) <= 165
    assert text.index("make demo") < text.index("make test") < text.index("## Install")


def test_the_settings_of_the_page_are_all_of_them_and_are_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    toml = "\n".join(blocks("docs/settings.md", "toml"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pyproject.toml").write_text(toml)
    assert main(["inspect", str(SAMPLES / "no-ste.pt")]) == 1
    (tmp_path / "pyproject.toml").write_text("[tool.vqdoctor]\nno-such-setting = 1\n")
    capsys.readouterr()
    assert main(["inspect", str(SAMPLES / "no-ste.pt")]) == 2
    (known,) = re.findall(r"known: (.*)", capsys.readouterr().err)
    for name in known.split(", "):
        assert re.search(rf"^(# )?{name} = |^\[tool\.vqdoctor\.{name}\]", toml, re.MULTILINE), name


def test_every_figure_names_a_command_that_exists() -> None:
    table = (ROOT / "docs" / "figures.md").read_text().split("## The samples")[0]
    rows = re.findall(r"^\| .* \|$", table, re.MULTILINE)[2:]
    makefile = (ROOT / "Makefile").read_text()
    assert len(rows) >= 12
    for row in rows:
        (target,) = re.findall(r"`make ([a-z]+)` \|$", row)
        assert f"\n{target}:" in makefile, row


@pytest.mark.slow
def test_the_python_of_the_pages_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from small_vqvae import digits, trained

    model, optimizer = trained()
    x = digits()[0]
    monkeypatch.chdir(ROOT)
    names = {"model": model, "optimizer": optimizer, "x": x}
    for block in blocks("docs/python.md", "python"):
        exec(block, names)
    assert "report" in names
    monkeypatch.chdir(tmp_path)
    (loop,) = blocks("docs/python.md", "py")
    fresh = copy.deepcopy(model)
    own = torch.optim.Adam(fresh.parameters())
    exec(loop, {"vqdoctor": vqdoctor, "model": fresh, "optimizer": own, "loader": x[:320].split(8) * 3})
    assert len((tmp_path / "run.vqtrace.jsonl").read_text().splitlines()) == 3
    batch, task, stepped = blocks("docs/model.md", "python")
    exec(batch, {"x": x.numpy(), "y": x[:, 0, 0, 0].numpy(), "z_e": x.numpy(), "indices": x[:, 0].numpy()})
    for form in (task, stepped):
        exec(form, {})


def test_the_experiments_are_listed_with_the_causes_that_they_take_away() -> None:
    part = (ROOT / "docs/model.md").read_text().partition("## Experiments")[2]
    rows = [line.split("|")[1:4] for line in part.splitlines() if line.startswith("| `")]
    told = {name.strip(" `"): tuple(re.findall(r"VQ\d{3}", codes)) for name, _, codes in rows}
    assert list(told.items()) == [(name, removal.codes) for name, removal in REMOVALS.items()]
