"""The generated parts of README.md: between `<!-- name -->` and `<!-- /name -->`.

`python tests/readme.py` writes them; a test compares them.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

from vqdoctor.checks import all_checks
from vqdoctor.core.assertion import METRICS
from vqdoctor.core.exit_codes import ExitCode
from vqdoctor.engine import examine
from vqdoctor.layouts.families import all_layouts
from vqdoctor.render import RenderOptions, all_renderers

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
SAMPLES = ROOT / "sample_checkpoints"


def demo() -> str:
    """The report that the first command of `make demo` prints."""
    report = examine(SAMPLES / "no-ste.pt")
    names = {check.code: check.name for check in all_checks()}
    text = all_renderers()["rich"].render(report, RenderOptions(width=80, names=names))
    return f"```\n{text.replace(str(ROOT) + '/', '').rstrip()}\n```"


def exit_codes() -> str:
    """What each exit code means."""
    rows = [f"| {int(code)} | {code.meaning} |" for code in ExitCode]
    return "\n".join(["| code | meaning |", "| --- | --- |", *rows])


def formats() -> str:
    """What each format is for, as its module says."""
    docs = {name: sys.modules[r.render.__module__].__doc__ or "" for name, r in all_renderers().items()}
    rows = [f"| `{name}` | {doc.partition(chr(10))[0]} |" for name, doc in docs.items()]
    return "\n".join(["| format | what it is |", "| --- | --- |", *rows])


def metrics() -> str:
    """What a gate can hold: each metric with the option that sets its limit."""
    rows = [
        f"| `{metric.name}` | `--{metric.option}` | {'each VQ layer' if metric.by_layer else 'the model'} "
        f"| {metric.title} |"
        for metric in METRICS.values()
    ]
    return "\n".join(["| metric | option | of | what it is |", "| --- | --- | --- | --- |", *rows])


def checks() -> str:
    """Every check, in the priority order."""
    rows = [f"| {check.code} | {check.name} | {check.title} |" for check in all_checks()]
    return "\n".join(["| code | name | what is wrong |", "| --- | --- | --- |", *rows])


def layouts() -> str:
    """Every family of state-dict layouts."""
    rows = [f"| {layout.name} | {layout.title} |" for layout in all_layouts()]
    return "\n".join(["| layout | where it is found |", "| --- | --- |", *rows])


def samples() -> str:
    """What is expected of every sample; another test holds `inspect` against it."""
    expected = json.loads((SAMPLES / "expected.json").read_text())
    rows = [
        f"| `{name}` | {bare['verdict']}, {bare['first'] or 'nothing found'}, exit {bare['exit']} "
        f"| {data['verdict']}, {data['first'] or 'nothing found'}, exit {data['exit']} |"
        for name, (bare, data) in ((n, (e["bare"], e["with_data"])) for n, e in expected.items())
    ]
    head = ["| sample | bare | with `--data sample_checkpoints/digits.npz` |", "| --- | --- | --- |"]
    return "\n".join([*head, *rows])


PARTS: dict[str, Callable[[], str]] = {
    "demo": demo,
    "layouts": layouts,
    "exit codes": exit_codes,
    "metrics": metrics,
    "formats": formats,
    "checks": checks,
    "samples": samples,
}


def filled(text: str) -> str:
    """Return README's text with every generated part as it should be."""
    for name, part in PARTS.items():
        block = f"<!-- {name} -->\n{part()}\n<!-- /{name} -->"
        pattern = rf"<!-- {name} -->(\n.*?<!-- /{name} -->)?"
        text, found = re.subn(pattern, lambda _, block=block: block, text, count=1, flags=re.DOTALL)
        assert found, f"README has no place for {name}"
    return text


if __name__ == "__main__":
    README.write_text(filled(README.read_text()))
    sys.stderr.write("README.md is up to date\n")
