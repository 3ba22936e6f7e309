"""Workflow commands as GitHub's runner reads them; the runner's rules are written down here once more."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from many_findings import many

from vqdoctor.core.report import Report
from vqdoctor.render import RenderOptions, printable, renderer_of
from vqdoctor.render.github import LONGEST_TITLE, SHOWN


def shown(*reports: Report, **options: object) -> str:
    return renderer_of("github").render_all(reports, RenderOptions(**options))  # type: ignore[arg-type]


def read(line: str) -> tuple[str, dict[str, str], str]:
    """Read one command as the runner does: split at the second "::", properties at commas, then unescape."""
    assert line.startswith("::")
    head, _, message = line[2:].partition("::")
    command, _, listed = head.partition(" ")
    properties = dict(item.split("=", 1) for item in listed.split(",") if item)
    return command, {k: _unescape(v, "%3A:", "%2C,") for k, v in properties.items()}, _unescape(message)


def _unescape(text: str, *more: str) -> str:
    for pair in ("%0D\r", "%0A\n", *more, "%25%"):
        text = text.replace(pair[:3], pair[3:])
    return text


def commands(text: str) -> list[tuple[str, dict[str, str], str]]:
    return [read(line) for line in text.splitlines() if line.startswith("::")]


def test_findings_become_annotations_on_the_file(reports: dict[str, Report]) -> None:
    told = commands(shown(reports["collapsed"]))
    assert [command for command, _, _ in told] == ["error", "error", "error", "warning", "notice"]
    assert told[0][1] == {
        "file": "sample_checkpoints/no-ste.pt",
        "title": "VQ101 straight-through-missing on vq",
    }
    assert told[0][2].startswith("The VQ layer passes 0 % of the gradient back")
    assert told[0][2].endswith("Remedy: straight-through.")


def test_what_decided_comes_first_and_what_is_known_not_at_all(reports: dict[str, Report]) -> None:
    titles = [properties["title"] for _, properties, _ in commands(shown(reports["gate_failed"]))]
    assert titles[0] == "gate failed: perplexity on vq"
    assert not any("VQ502" in title for title in titles)


def test_the_first_ten_of_300_by_rank_and_the_rest_counted() -> None:
    text = shown(many(300))
    told = [p["title"] for _, p, _ in commands(text) if p["title"].startswith("VQ502")]
    assert len(commands(text)) == SHOWN
    assert text.splitlines()[-1] == "vqdoctor: 1 checkpoint, 10 annotations, 590 more in the job summary"
    assert told == [f"VQ502 dead-codes on vq{f'.{i}' if i else ''}" for i in range(len(told))]


def test_errors_of_a_later_file_come_before_warnings_of_an_earlier(reports: dict[str, Report]) -> None:
    told = commands(shown(reports["gate_passed"], reports["gate_failed"]))
    severities = [command for command, _, _ in told]
    assert severities == sorted(severities, key=["error", "warning", "notice"].index)


def test_a_file_with_much_to_say_leaves_room_for_the_first_of_another(reports: dict[str, Report]) -> None:
    text = shown(many(300), reports["gate_failed"])
    assert "gate failed: perplexity on vq" in [p["title"] for _, p, _ in commands(text)[:2]]


def test_a_gap_is_an_annotation(reports: dict[str, Report]) -> None:
    for name, title in (("incomplete", "VQ503 crashed on vq"), ("inconclusive", "no VQ layer was found")):
        assert commands(shown(reports[name]))[0][1]["title"] == title


def test_nothing_to_say_is_a_line_without_a_command(reports: dict[str, Report]) -> None:
    assert shown(reports["healthy"]) == "vqdoctor: 1 checkpoint, 0 annotations\n"


NASTY = st.text(alphabet="%:,=\r\n;\\#[]\x1b\u2028 aé") | st.text()


@given(NASTY)
def test_no_layer_name_can_write_a_command_of_its_own(name: str) -> None:
    text = shown(many(1, layer=name))
    gap, found, count, end = text.split("\n")
    assert gap.startswith("::error file=runs/a.pt,title=usage of") and found.startswith("::error file=runs/a")
    assert (count, end) == ("vqdoctor: 1 checkpoint, 2 annotations", "")
    for command, properties, message in commands(text):
        assert command == "error"
        assert properties.keys() == {"file", "title"}
        assert printable(name) in message


@pytest.mark.parametrize("path", ["a,b=c::d%0A.pt", "x,title=y.pt", "a\n::error::b.pt"])
def test_no_path_can_add_a_property(path: str) -> None:
    (_, properties, _), *_ = commands(shown(many(1, path=path)))
    assert properties["file"] == printable(path)


def test_a_title_is_no_longer_than_github_takes() -> None:
    for _, properties, _ in commands(shown(many(1, layer="k" * 900))):
        assert len(properties["title"]) <= LONGEST_TITLE
