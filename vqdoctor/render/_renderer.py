"""The type of a renderer: a function from a report to text, and for some formats one from several reports."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import field

from vqdoctor.core.frozen import frozen
from vqdoctor.core.levels import Severity
from vqdoctor.core.picture import Picture
from vqdoctor.core.report import Report


@frozen
class RenderOptions:
    """The abilities of the terminal or page that shows the text, and the facts beside the report.

    Attributes:
        width: columns.
        color: whether it understands colour.
        ascii: whether it can show ASCII only.
        bar: the severity from which a finding fails the run; None if none does.
        folder: the folder that the reports' paths start from; "" leaves relative paths as they are.
        root: the repository, for formats that name files within it; "" where there is none.
        docs: the page of each check by its code, in Markdown; its first line is the title.
        names: the name of each check by its code.
        verbose: whether the formats for readers show what they fold otherwise.
        pictures: draws a report's pictures; a format without pictures does not call it.
    """

    width: int = 80
    color: bool = False
    ascii: bool = False
    bar: Severity | None = Severity.ERROR
    folder: str = ""
    root: str = ""
    docs: Mapping[str, str] = field(default_factory=dict)
    names: Mapping[str, str] = field(default_factory=dict)
    verbose: bool = False
    pictures: Callable[[Report], Sequence[Picture]] = lambda _: ()


@frozen
class Renderer:
    """One format. One file in `render/` defines one, as `RENDERER`.

    A renderer makes no decision: it only shows the report. Whatever comes from the
    examined file passes through `printable`, so that a hostile file cannot write on the terminal.

    Attributes:
        name: its name for `--format`.
        suffix: the end of its files' names (".json").
        render: report and options in, text out, ending in a newline.
        several: the same for several reports; None where their texts are simply joined.
        summary: (environment variable, format): where a CI system names a file there, the report
            is appended to it in that format as well; None where there is no such custom.
    """

    name: str
    suffix: str
    render: Callable[[Report, RenderOptions], str]
    several: Callable[[Sequence[Report], RenderOptions], str] | None = None
    summary: tuple[str, str] | None = None

    def render_all(self, reports: Sequence[Report], options: RenderOptions) -> str:
        """Return one report as `render` does, and several as one text."""
        if len(reports) == 1:
            return self.render(reports[0], options)
        if self.several:
            return self.several(reports, options)
        return "\n".join(self.render(report, options) for report in reports)
