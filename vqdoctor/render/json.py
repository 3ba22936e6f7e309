"""The report as schema 1, for programs."""

from __future__ import annotations

import re

from vqdoctor.core.report import Report
from vqdoctor.render._renderer import Renderer, RenderOptions

# JSON lets these stand in a string as they are, but a terminal may obey them, and UTF-8 refuses surrogates.
_UNSAFE = re.compile(
    "[\x7f-\x9f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff"
    "\U000e0000-\U000e007f]"
)
_NOT_ASCII = re.compile("[^\x00-\x7e]")


def render(report: Report, options: RenderOptions) -> str:
    """Return the report as JSON, escaped where a terminal or its encoding could not bear a character."""
    unsafe = _NOT_ASCII if options.ascii else _UNSAFE
    return unsafe.sub(_escape, report.to_json()) + "\n"


def _escape(match: re.Match[str]) -> str:
    units = match[0].encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[i : i + 4]}" for i in range(0, len(units), 4))


RENDERER = Renderer(name="json", suffix=".json", render=render)
