"""The Code Quality report of GitLab: a list of issues that its merge requests show as new or as resolved."""

import hashlib
from collections import Counter
from collections.abc import Sequence

from vqdoctor.core.levels import Severity
from vqdoctor.core.report import Report
from vqdoctor.render._alerts import Alert, alerts, file_of
from vqdoctor.render._json import safe_json
from vqdoctor.render._renderer import Renderer, RenderOptions
from vqdoctor.render._text import printable

SEVERITIES = {Severity.ERROR: "critical", Severity.WARNING: "major", Severity.NOTE: "info"}
DECISIVE = "blocker"
"""The severity of a judgement that fails the gate or leaves it open."""


def render(report: Report, options: RenderOptions) -> str:
    """Return the report as JSON."""
    return several([report], options)


def several(reports: Sequence[Report], options: RenderOptions) -> str:
    """Return the reports as one list; known and silenced issues are left out, as GitLab cannot hide them."""
    seen: Counter[str] = Counter()
    issues = [
        _issue(alert, file_of(report, options), options.ascii, seen)
        for report in reports
        for alert in alerts(report)
        if not alert.hidden
    ]
    return safe_json(issues, ascii=options.ascii)


def _issue(alert: Alert, file: str, ascii: bool, seen: Counter[str]) -> dict[str, object]:
    decisive = alert.judgement is not None and alert.severity is Severity.ERROR
    title, message = printable(alert.title, ascii=ascii), printable(alert.message, ascii=ascii)
    # GitLab drops the second of two equal fingerprints, so the file and a running number belong into it.
    identity = f"{file}\0{alert.fingerprint}"
    seen[identity] += 1
    unique = f"{identity}\0{seen[identity]}".encode("utf-8", "surrogatepass")
    return {
        "description": f"{title}: {message}",
        "check_name": alert.rule,
        "fingerprint": hashlib.sha256(unique).hexdigest(),
        "severity": DECISIVE if decisive else SEVERITIES[alert.severity],
        "location": {"path": printable(file, ascii=ascii), "lines": {"begin": 1}},
    }


RENDERER = Renderer(name="gitlab", suffix=".gitlab.json", render=render, several=several)
