"""The only place that writes: standard output, complaints, progress, and files, whole or not at all."""

from __future__ import annotations

import codecs
import contextlib
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Self, TextIO

from vqdoctor.checks import all_checks
from vqdoctor.cli._plots import check_folder, draw_into
from vqdoctor.core.errors import UserError, suggestion
from vqdoctor.core.files import write_whole
from vqdoctor.core.frozen import frozen
from vqdoctor.core.picture import Picture
from vqdoctor.core.report import Report
from vqdoctor.core.settings import Settings
from vqdoctor.render import Renderer, RenderOptions, format_names, printable, renderer_of

_COMMAND = re.compile(r"##(?=\[|vso\[)")
_LINE_COMMAND = re.compile(r"^(\s*)::", re.MULTILINE)
_COMMAND_ESCAPES = {
    **dict.fromkeys(("json", "sarif", "gitlab"), (r"\u0023", ": ")),
    "junit": ("&#35;", "&#58;"),
}
"""How each format of data writes the sign of a command, and a colon, so that a reader gets it back."""
SUMMARY_LIMIT = 1_000_000
"""Bytes of a job summary that are written; GitHub drops a summary of more than 1 MiB whole."""

WORKSPACES = ("GITHUB_WORKSPACE", "CI_PROJECT_DIR", "WORKSPACE")
"""Environment variables in which GitHub, GitLab and Jenkins name the folder of the repository."""


def terminal_options() -> RenderOptions:
    """Return the width and colour of standard output: the terminal's, or 80 plain columns elsewhere."""
    terminal = is_terminal(sys.stdout)
    return RenderOptions(
        width=shutil.get_terminal_size((80, 24)).columns if terminal else 80,
        color=terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb",
        ascii=not _is_utf8(sys.stdout),
    )


@frozen
class Output:
    """Where the reports of a run go: one format to standard output, others to files.

    Attributes:
        settings: the settings of the run.
        renderer: the format of standard output.
        targets: files to save, and the format of each.
    """

    settings: Settings
    renderer: Renderer
    targets: Mapping[Path, Renderer]

    @classmethod
    def of(cls, settings: Settings, *inputs: Path) -> Self:
        """Return the targets, all of them writable, and report the code and data that pyproject.toml names.

        Args:
            settings: the format of standard output, and the reports to save as FORMAT=FILE.
            inputs: files that must not be written over, beside the inputs that the settings name.

        Raises:
            UserError: if a format is unknown, a file cannot be written, or there is nothing to draw with.
        """
        targets: dict[Path, Renderer] = {}
        renderer = _renderer(settings.format)
        for text in settings.save:
            name, equals, file = text.partition("=")
            if not (equals and file):
                raise UserError(f"--save {text}: not of the form FORMAT=FILE", "such as json=report.json")
            saver, target = _renderer(name), Path(file)
            check_target(target, (*settings.inputs, *inputs))
            if any(target.resolve() == other.resolve() for other in targets):
                raise UserError(f"--save {text}: two reports for one file", "save under two names")
            targets[target] = saver
        if settings.plots:
            check_folder(settings.plots)
        if settings.named_in_file:
            complain(settings.named_in_file)
        return cls(settings=settings, renderer=renderer, targets=targets)

    def publish(
        self, reports: Sequence[Report], instead: str | None = None, encoding: str | None = None
    ) -> None:
        """Write the reports of one run everywhere.

        Args:
            reports: the reports.
            instead: a text that standard output gets for them.
            encoding: see `write`.

        Raises:
            UserError: if something cannot be written.
        """
        if told := [t for t in (self.settings.named_in_file, self.settings.decided_in_file) if t]:
            reports = [replace(report, notes=(*report.notes, *told)) for report in reports]
        bar = self.settings.bar
        folder, root = _place()
        saved = RenderOptions(
            bar=bar,
            folder=folder,
            root=root,
            docs={check.code: check.doc for check in all_checks()},
            names={check.code: check.name for check in all_checks()},
            verbose=self.settings.verbose,
            pictures=_pictures,
        )
        here = terminal_options()
        shown = replace(saved, width=here.width, color=here.color, ascii=here.ascii)
        text = self.renderer.render_all(reports, shown) if instead is None else instead
        write(without_commands(text, self.renderer.name), encoding)
        for target, saver in self.targets.items():
            save(saver.render_all(reports, saved), target)
        if self.settings.plots:
            draw_into(self.settings.plots, reports)
        variable, format = self.renderer.summary or ("", "")
        if variable and (file := os.environ.get(variable)):
            append(_renderer(format).render_all(reports, saved), Path(file), SUMMARY_LIMIT)


def _pictures(report: Report) -> Sequence[Picture]:
    from vqdoctor.plots import pictures  # a format without pictures needs none of them

    return pictures(report)


def _renderer(name: str) -> Renderer:
    known = format_names()
    if name not in known:
        raise UserError(f"there is no format {name!r}", suggestion(name, known))
    return renderer_of(name)


def _place() -> tuple[str, str]:
    """Return the folder that this runs in and the root of its repository; both "" where there is none."""
    here = Path.cwd()
    named = [Path(os.environ[name]) for name in WORKSPACES if os.environ.get(name)]
    checkouts = (folder for folder in (here, *here.parents) if (folder / ".git").exists())
    root = next((folder for folder in (*named, *checkouts) if here.is_relative_to(folder)), None)
    return ("", "") if root is None else (str(here), str(root))


def without_commands(text: str, format: str) -> str:
    """Return a report in which no line is a command to a CI runner, beyond those of the format itself.

    GitHub's runner obeys a line that starts with "::", and "##[" anywhere in one; a name from a stranger's
    file can hold either. Elsewhere the report stays as it is.
    """
    if not (os.environ.get("GITHUB_ACTIONS") or os.environ.get("TF_BUILD")):
        return text
    escape, colon = _COMMAND_ESCAPES.get(format, ("# ", ": "))
    text = _COMMAND.sub(lambda found: escape + found[0][1:], text)
    return text if format == "github" else _LINE_COMMAND.sub(lambda found: found[1] + colon + ":", text)


def is_terminal(stream: TextIO | None) -> bool:
    """Whether somebody watches the stream."""
    return stream is not None and not stream.closed and stream.isatty()


def _is_utf8(stream: TextIO | None) -> bool:
    try:
        return codecs.lookup(getattr(stream, "encoding", None) or "ascii").name == "utf-8"
    except LookupError:
        return False


def write(text: str, encoding: str | None = None) -> None:
    """Write to standard output; a reader who has gone is not an error.

    Args:
        text: what is written.
        encoding: that of a patch's hunks, whose head names files in UTF-8 as git does; None for any other
            text, in the encoding of standard output.

    Raises:
        UserError: if it cannot be written for another reason, such as a full disk.
    """
    if sys.stdout is None:
        return
    try:
        if encoding is None:
            sys.stdout.write(text)
        else:
            head, mark, hunks = text.partition("@@")
            sys.stdout.buffer.write(head.encode() + (mark + hunks).encode(encoding))
        sys.stdout.flush()
    except BrokenPipeError:
        _forget(sys.stdout)
    except OSError as error:
        _forget(sys.stdout)
        raise UserError(f"standard output: {error.strerror or error}", "write to another place") from error


def flush() -> None:
    """Flush standard output where it may still hold text that others wrote."""
    if sys.stdout is not None:
        try:
            sys.stdout.flush()
        except OSError:
            _forget(sys.stdout)


def _forget(stream: TextIO) -> None:
    """Send the rest to nowhere, so that Python's last flush does not fail and change the exit code."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def complain(message: str) -> None:
    """Write one line to standard error."""
    if sys.stderr is not None:
        line = without_commands(printable(message, ascii=not _is_utf8(sys.stderr)), "text")
        with contextlib.suppress(OSError):
            sys.stderr.write(line + "\n")


def complain_of(error: UserError) -> None:
    """Write an error to standard error, and its help on a second line."""
    complain(f"error: {error.what}")
    if error.hint:
        complain(f"help: {error.hint}")


@contextlib.contextmanager
def progress() -> Iterator[Callable[[str], None] | None]:
    """Give a function that shows each step; the prints of the user's code go to standard error.

    Standard output is for the report alone, which a script may read.
    """
    with stdout_elsewhere():
        if not is_terminal(sys.stderr):
            yield None
            return
        from rich.console import Console
        from rich.text import Text

        console = Console(stderr=True)
        with console.status("", spinner="line") as status:
            yield lambda message: status.update(Text(printable(message)))


@contextlib.contextmanager
def stdout_elsewhere() -> Iterator[None]:
    """Send to standard error what the user's code writes to standard output, by whatever way.

    A print goes through Python; a C library and a child process write to file descriptor 1.
    """
    kept = None
    with contextlib.suppress(OSError):
        flush()
        kept = os.dup(1)
        os.dup2(2, 1)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        if kept is not None:
            _flush_c()
            os.dup2(kept, 1)
            os.close(kept)


def be_quiet() -> None:
    """Print nothing from now on: another process of the same launch does."""
    sys.stdout = sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115


def be_heard() -> None:
    """Print to standard error again."""
    sys.stderr = sys.__stderr__


def silence() -> None:
    """Send all that is still written to standard output to standard error: the report is complete."""
    with contextlib.suppress(OSError):
        os.dup2(2, 1)
    sys.stdout = sys.stderr


def _flush_c() -> None:
    """Flush what C code has written and its library still holds, where C code of the user's has run."""
    if "torch" in sys.modules:
        import ctypes

        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).fflush(None)


def check_target(path: Path, inputs: tuple[Path, ...]) -> None:
    """Make sure, before the long work, that a report can be written there and that the file is not an input.

    Raises:
        UserError: if not.
    """
    refuse_input("--save", path, inputs)
    if path.exists() and not path.is_file():
        raise UserError(f"--save {path}: exists and is not a regular file", "name a file")
    folder = path.resolve().parent
    if not folder.is_dir():
        raise UserError(f"--save {path}: there is no folder {folder}", f"mkdir -p {folder}")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UserError(f"--save {path}: the folder {folder} cannot be written to", "save elsewhere")


def refuse_input(option: str, path: Path, inputs: Iterable[Path]) -> None:
    """Make sure that a file to be written is none of the inputs, under whatever name.

    Raises:
        UserError: if it is one.
    """
    for source in inputs:
        same = path.resolve() == source.resolve()
        with contextlib.suppress(OSError):
            same = same or path.samefile(source)
        if same:
            raise UserError(f"{option} {path}: this is an input", "write under another name")


def save(text: str, path: Path) -> None:
    """Write a file whole or not at all: to a temporary file beside it, then renamed over it.

    Raises:
        UserError: if it cannot be written.
    """
    target = path.resolve()  # through a link, so that the link survives
    try:
        write_whole(target, text)
    except OSError as error:
        raise UserError(f"--save {path}: {error.strerror or error}", "save elsewhere") from error


def append(text: str, path: Path, limit: int) -> None:
    """Append to a file that may grow to `limit` bytes; the rest is cut off at a line, with a note.

    Nobody asked for this file by name, so a failure is a warning and nothing else.
    """
    data, more = text.encode(), b"\nCut off here: no more fits into this summary.\n"
    try:
        if path.exists() and not path.is_file():
            raise OSError("it is not a regular file")  # opening a pipe that nobody reads never returns
        with path.open("ab") as file:
            room = limit - file.tell()
            if len(data) > room:
                data = data[: max(0, room - len(more))]
                data = data[: data.rfind(b"\n") + 1]
                data += more if data else b""
            file.write(data)
    except OSError as error:
        complain(f"warning: the summary {path} was not written: {error.strerror or error}")
