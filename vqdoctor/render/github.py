"""Annotations of a GitHub job: the first ten, as GitHub shows only ten per step; the summary has all."""

from collections.abc import Sequence

from vqdoctor.core.levels import Severity
from vqdoctor.core.report import Report
from vqdoctor.render._alerts import alerts, file_of
from vqdoctor.render._renderer import Renderer, RenderOptions
from vqdoctor.render._text import count, printable

SHOWN = 10
"""Annotations that GitHub shows of one step."""

LONGEST_TITLE = 255
"""Characters of a title that GitHub takes."""

COMMANDS = {Severity.ERROR: "error", Severity.WARNING: "warning", Severity.NOTE: "notice"}


def render(report: Report, options: RenderOptions) -> str:
    """Return the report as workflow commands."""
    return several([report], options)


def several(reports: Sequence[Report], options: RenderOptions) -> str:
    """Return the reports as workflow commands, the worst first, and one line that counts the rest.

    Of equally bad ones the first of every report come before the second of any: no file may use up all lines.
    """
    told = []
    for report in reports:
        seen = [alert for alert in alerts(report) if not alert.hidden]
        told += [(-alert.severity, rank, alert, file_of(report, options)) for rank, alert in enumerate(seen)]
    told.sort(key=lambda one: one[:2])
    lines = []
    for _, _, alert, file in told[:SHOWN]:
        name, title, text = (printable(t, ascii=options.ascii) for t in (file, alert.title, alert.message))
        properties = f"file={_property(name)},title={_property(title[:LONGEST_TITLE])}"
        lines.append(f"::{COMMANDS[alert.severity]} {properties}::{_data(text)}")
    rest = f", {len(told) - SHOWN} more in the job summary" if len(told) > SHOWN else ""
    lines.append(f"vqdoctor: {count(len(reports), 'checkpoint')}, {count(len(lines), 'annotation')}{rest}")
    return "\n".join(lines) + "\n"


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")


RENDERER = Renderer(
    name="github",
    suffix=".github",
    render=render,
    several=several,
    summary=("GITHUB_STEP_SUMMARY", "markdown"),
)
