"""The generated parts of README.md and of docs/: between `<!-- name -->` and `<!-- /name -->`.

`make docs` writes them; a test compares them.
"""

from __future__ import annotations

import contextlib
import inspect
import io
import json
import os
import re
import sys
from collections.abc import Callable, Iterator
from itertools import groupby
from pathlib import Path

import torch
from layout_families import FAMILIES, LIVE, tensors
from stored import Stored

import vqdoctor
from vqdoctor.checks import all_checks
from vqdoctor.cli.main import main
from vqdoctor.core.assertion import METRICS
from vqdoctor.core.check import Check
from vqdoctor.core.exit_codes import ExitCode
from vqdoctor.engine import examine
from vqdoctor.layouts import find_quantizers
from vqdoctor.layouts.families import all_layouts
from vqdoctor.plots import all_plots
from vqdoctor.remedies import all_remedies
from vqdoctor.render import RenderOptions, all_renderers

ROOT = Path(__file__).parents[1]
SAMPLES = ROOT / "sample_checkpoints"


def table(*rows: tuple[object, ...]) -> str:
    """Return a Markdown table; the first row is its head."""
    head, *body = [f"| {' | '.join(map(str, row))} |" for row in rows]
    return "\n".join([head, f"|{' --- |' * len(rows[0])}", *body])


def demo() -> str:
    """The head of the first report of `make demo`: down to the first cause, then the plan's first step."""
    report = examine(SAMPLES / "no-ste.pt")
    names = {check.code: check.name for check in all_checks()}
    text = (
        all_renderers()["rich"].render(report, RenderOptions(width=80, names=names)).replace(f"{ROOT}/", "")
    )
    head, cut, _ = text.partition("    It explains:\n")
    plan = re.search(r"^PLAN\b.*?(?=\n2\. |\n\n)", text, re.MULTILINE | re.DOTALL)
    assert cut and plan, "the report has another form: choose another place to cut it"
    return f"```\n{head}{cut}    […]\n\n{plan[0]}\n[…]\n```"


def exit_codes() -> str:
    """What each exit code means."""
    return table(("code", "meaning"), *((int(code), code.meaning) for code in ExitCode))


def formats() -> str:
    """What each format is for, as its module says."""
    docs = {name: sys.modules[r.render.__module__].__doc__ or "" for name, r in all_renderers().items()}
    return table(
        ("format", "content"), *((f"`{name}`", doc.partition("\n")[0]) for name, doc in docs.items())
    )


def pictures() -> str:
    """What each picture shows, as its module says."""
    docs = {p.name: sys.modules[p.drawings.__module__].__doc__ or "" for p in all_plots()}
    places = {p.name: "the model" if p.of_model else "each VQ layer" for p in all_plots()}
    rows = ((f"`{name}`", places[name], doc.partition("\n")[0]) for name, doc in docs.items())
    return table(("picture", "of", "content"), *rows)


def metrics() -> str:
    """Every metric of a gate, with the option that sets its limit."""
    return table(
        ("metric", "option", "of", "meaning"),
        *(
            (f"`{m.name}`", f"`--{m.option}`", "each VQ layer" if m.by_layer else "the model", m.title)
            for m in METRICS.values()
        ),
    )


def layouts() -> str:
    """Every family of state-dict layouts, as each shows itself on its own example."""
    rows = []
    for layout in all_layouts():
        (view,) = find_quantizers({k: Stored(torch.ones(s)) for k, s in layout.example.items()}).views
        codes = "columns" if view.place.transposed else "computed" if view.derived else "rows"
        usage = "EMA counts" if "counts" in view.keys else "needs data"
        statistics = [role for role in ("counts", "sums") if role in view.keys]
        write = ", ".join(["codes", *statistics] if not view.derived else statistics) or "no"
        write = "no: rightly never trained" if view.frozen and not view.derived else write
        sure = "certain" if view.confidence.label == "high" else f"{view.confidence.label} confidence"
        rows.append((layout.name, layout.title, sure, codes, usage, write))
    head = ("layout", "where it is found", "by its names", "codes are", "usage of a bare file", "fix writes")
    return table(head, *rows)


def families() -> str:
    """Every family of models that the tests know, as its own file shows it."""
    rows = []
    for name in FAMILIES:
        views = find_quantizers({key: Stored(value) for key, value in tensors(name).items()}).views
        view = views[0]
        codes = "columns" if view.place.transposed else "computed" if view.derived else "rows"
        usage = "EMA counts" if "counts" in view.keys else "needs data"
        write = "yes" if view.writable and not (view.frozen and not view.derived) else "no"
        live = "yes" if name in LIVE else "not installed here"
        rows.append(
            (name, view.layout, f"{len(views)} of {view.num_codes:,} codes", codes, usage, write, live)
        )
    head = ("family", "layout", "layers found", "codes are", "usage of a bare file", "fix writes", "live")
    return table(head, *rows)


def samples() -> str:
    """The expected result of every sample; another test compares `inspect` with it."""
    expected = json.loads((SAMPLES / "expected.json").read_text())

    def cell(told: dict[str, object]) -> str:
        return f"{told['verdict']}, {told['first'] or 'nothing found'}, exit {told['exit']}"

    return table(
        ("sample", "bare", "with `--data sample_checkpoints/digits.npz`"),
        *((f"`{name}`", cell(e["bare"]), cell(e["with_data"])) for name, e in expected.items()),
    )


def command_help(command: str) -> str:
    """The help of a command, 100 columns wide."""
    text, columns = io.StringIO(), os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = "100"
    try:
        with contextlib.redirect_stdout(text):
            assert main([command, "--help"]) == 0
    finally:
        os.environ.pop("COLUMNS")
        os.environ.update({"COLUMNS": columns} if columns else {})
    return f"```\n{text.getvalue().strip()}\n```"


def examine_arguments() -> str:
    """The arguments and options of `vqdoctor.examine`, as its docstring explains them."""
    doc = inspect.getdoc(vqdoctor.examine) or ""
    found: list[tuple[str, str]] = []
    for title in ("Args", "Options"):
        (section,) = re.findall(rf"^{title}:\n(.*?)(?:\n\n|\Z)", doc, re.MULTILINE | re.DOTALL)
        found += re.findall(r"^    (\w+): (.*?)(?=\n    \w|\Z)", section, re.MULTILINE | re.DOTALL)
    rows = ((f"`{name}`", " ".join(text.split())) for name, text in found if name != "options")
    return table(("argument", "meaning"), *rows)


def checks_table() -> str:
    """Every check with a link to its section."""
    return table(
        ("code", "name", "what is wrong"),
        *((f"[{c.code}](#{c.code.lower()}-{c.name})", c.name, c.title) for c in all_checks()),
    )


def checks() -> str:
    """The page of every check, in the priority order."""
    blocks = []
    for stage, members in groupby(all_checks(), key=lambda check: check.stage):
        blocks.append(f"## Stage {int(stage)}: {stage.label}")
        blocks += [block for check in members for block in _check(check)]
    return "\n\n".join(blocks)


def _check(check: Check) -> Iterator[str]:
    yield f"### {check.code} {check.name}"
    yield f"**{check.title}**"
    sections = re.split(r"^## ", check.doc, flags=re.MULTILINE)[1:]
    for title, _, text in (section.partition("\n") for section in sections):
        if title == "Remedy":
            yield "#### Limits"
            limits = [(f"`{name}`", f"{default:g}", doc) for name, default, doc in check.limit_docs()]
            yield table(("limit", "default", "meaning"), *limits) if limits else "None."
        yield f"#### {title}"
        yield inspect.cleandoc(text)
        if title == "Remedy":
            known = {remedy.name: remedy for remedy in all_remedies()}
            advice = getattr(check, "advice", None)
            for remedy in (*(known[name] for name in check.remedies), *([advice] if advice else [])):
                yield f"`{remedy.name}`: {remedy.how}"
                if remedy.code:
                    yield f"```python\n{remedy.code}\n```"


PAGES: dict[str, dict[str, Callable[[], str]]] = {
    "README.md": {"demo": demo, "exit codes": exit_codes},
    "docs/ablation.md": {},
    "docs/checks.md": {"checks table": checks_table, "checks": checks},
    "docs/figures.md": {"samples": samples},
    "docs/fix.md": {},
    "docs/formats-and-ci.md": {"formats": formats, "pictures": pictures},
    "docs/gate.md": {"metrics": metrics},
    "docs/layouts.md": {"layouts": layouts, "families": families},
    "docs/model.md": {},
    "docs/python.md": {"examine arguments": examine_arguments},
    "docs/scale.md": {},
    "docs/settings.md": {
        f"help of {command}": lambda command=command: command_help(command)
        for command in ("inspect", "fix", "gate", "compare", "ablate", "watch")
    },
    "docs/tour.md": {},
}


def filled(page: str) -> str:
    """Return the text of a page with every generated part as it should be."""
    text = (ROOT / page).read_text()
    for name, part in PAGES[page].items():
        block = f"<!-- {name} -->\n{part()}\n<!-- /{name} -->"
        pattern = rf"<!-- {name} -->(\n.*?<!-- /{name} -->)?"
        text, found = re.subn(pattern, lambda _, block=block: block, text, count=1, flags=re.DOTALL)
        assert found, f"{page} has no place for {name}"
    return text


def handwritten(page: str) -> str:
    """Return the text of a page without its generated parts, line numbers kept."""
    text = (ROOT / page).read_text()
    for name in PAGES[page]:
        text = re.sub(
            rf"<!-- {name} -->.*?<!-- /{name} -->", lambda m: "\n" * m[0].count("\n"), text, flags=re.DOTALL
        )
    return text


if __name__ == "__main__":
    for page in PAGES:
        (ROOT / page).write_text(filled(page))
    sys.stderr.write(f"up to date: {', '.join(PAGES)}\n")
