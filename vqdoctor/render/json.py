"""The report as schema 1, for programs."""

from collections.abc import Sequence

from vqdoctor.core.report import SCHEMA, Report
from vqdoctor.render._json import safe_json
from vqdoctor.render._phrases import gate_status
from vqdoctor.render._renderer import Renderer, RenderOptions


def render(report: Report, options: RenderOptions) -> str:
    """Return the report as JSON."""
    return safe_json(report.to_dict(), ascii=options.ascii)


def several(reports: Sequence[Report], options: RenderOptions) -> str:
    """Return the reports as one JSON object, with the gate's status over all of them."""
    status = gate_status(reports)
    value = {
        "schema": SCHEMA,
        "gate": {"status": status} if status else None,
        "reports": [report.to_dict() for report in reports],
    }
    return safe_json(value, ascii=options.ascii)


RENDERER = Renderer(name="json", suffix=".json", render=render, several=several)
