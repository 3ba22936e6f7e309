"""From what was named on the command line to gated reports: globs, run folders, saved reports."""

from __future__ import annotations

import glob
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import vqdoctor
from vqdoctor.checkpoint.files import printable
from vqdoctor.checkpoint.folders import natural, newest
from vqdoctor.checks import all_checks
from vqdoctor.core.errors import CheckpointError, UserError
from vqdoctor.core.exit_codes import ExitCode
from vqdoctor.core.frozen import frozen
from vqdoctor.core.gate import Gate
from vqdoctor.core.json_text import parse
from vqdoctor.core.report import CheckpointSummary, Report
from vqdoctor.core.settings import Settings, UserModel
from vqdoctor.engine.evaluate import choose
from vqdoctor.engine.examine import concluded, examine_session
from vqdoctor.engine.gate.hold import certain
from vqdoctor.engine.gate.policy import Policy, decide, hold, require_known_layers
from vqdoctor.engine.gate.ranges import require_possible
from vqdoctor.engine.gate.together import gate_together
from vqdoctor.engine.session import Progress, Session

if TYPE_CHECKING:  # 5 ms
    from concurrent.futures import Future

LARGEST_REPORT = 64 << 20
"""Bytes of a saved report that are read; a VQ layer takes some 20 KB, and with its histogram 100 KB."""
MOST_LAYERS = 1000
"""VQ layers of a saved report that are judged again, of some 2 ms each."""
AHEAD = 4
"""Files that wait for each process, so that none is idle and few reports are in flight."""
WRITES_ONE = "vqdoctor inspect CKPT --save json=report.json writes one"


@frozen
class Source:
    """Checkpoints or saved reports to judge, and the batches to examine checkpoints with."""

    paths: tuple[Path, ...]
    data: tuple[Path, ...] = ()
    user_model: UserModel | None = None
    settings: Settings | None = None


@frozen
class Judged:
    """All files with their gates.

    Attributes:
        reports: a report with its gate for each file; the report of an unreadable file holds only that fact.
        errors: the errors of the files that cannot be read.
    """

    reports: tuple[Report, ...]
    errors: tuple[CheckpointError, ...] = ()

    @property
    def exit_code(self) -> ExitCode:
        """2 where a file cannot be read, else 3 where a check crashed, else 1 before 3, as the gates say."""
        statuses = {report.gate.status for report in self.reports if report.gate}
        if self.errors:
            return ExitCode.USER_ERROR
        if any(outcome.status == "crashed" for report in self.reports for outcome in report.outcomes):
            return ExitCode.INCOMPLETE
        if "fail" in statuses:
            return ExitCode.FINDINGS
        return ExitCode.OK if statuses == {"pass"} else ExitCode.INCOMPLETE


def judge_all(source: Source, policy: Policy, progress: Progress | None = None) -> Judged:
    """Judge every file of `source`.

    Raises:
        UserError: if nothing could be read, a name is unknown, or a batch or the user's code fails.
    """
    reports: list[Report] = []
    unreadable: list[Report] = []
    errors: list[CheckpointError] = []
    for path, read in zip(source.paths, _all(source, progress or (lambda _: None)), strict=True):
        try:
            reports += read()
        except CheckpointError as error:
            batches = {name for data in source.data for name in (os.fspath(data), printable(data))}
            if len(source.paths) == 1 or error.path in batches:
                raise
            errors.append(error)
            unreadable.append(_unreadable(path, error))
    require_known_layers(policy.rules, reports)
    try:
        if policy.rules.aggregate and len(reports) > 1:
            gates = gate_together(reports, policy.rules.aggregate, policy)
        else:
            gates = [decide(report, hold(report, policy), policy) for report in reports]
    except (TypeError, ValueError, ArithmeticError) as error:
        if any(map(is_report, source.paths)):
            what = f"a report holds an impossible value ({type(error).__name__}: {error})"
            raise UserError(what, "write the report again") from error
        raise
    gated = [replace(report, gate=gate) for report, gate in zip(reports, gates, strict=True)]
    return Judged(reports=(*gated, *unreadable), errors=tuple(errors))


def _all(source: Source, progress: Progress) -> Iterator[Callable[[], list[Report]]]:
    """Yield for each file, in order, a function that returns its reports or raises its error.

    Several processes read the files where the settings allow that. A user's model is run in this one.
    """
    jobs = min(source.settings.jobs if source.settings else 1, len(source.paths))
    if jobs < 2 or (source.user_model is not None and source.user_model.runs):
        for path in source.paths:
            yield partial(_reports, path, source, progress)
        return
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        ready: deque[Future[list[Report]]] = deque()
        for number, path in enumerate(source.paths):
            ready.append(pool.submit(_reports, path, source, None))
            if len(ready) == jobs * AHEAD:
                progress(f"file {number + 2 - len(ready):,} of {len(source.paths):,}")
                yield ready.popleft().result
        yield from (future.result for future in ready)


def expand(names: Sequence[str]) -> tuple[Path, ...]:
    """Return the files that the names stand for: globs expanded, a run's folder as its newest checkpoint.

    Raises:
        UserError: if a pattern matches nothing, or a name is empty.
    """
    found: dict[Path, Path] = {}
    for name in names:
        if not name.strip():  # an unset variable must not become "the newest one here"
            raise UserError("an empty path was given", "name a checkpoint, or . for the newest one here")
        for path in _matches(name):
            chosen = newest(path) if path.is_dir() else path
            found.setdefault(chosen.absolute(), chosen)
    return tuple(found.values())


def _matches(name: str) -> list[Path]:
    if os.path.lexists(name) or not glob.has_magic(name):
        return [Path(name)]
    found = glob.glob(name, recursive=True)  # noqa: PTH207 - Path.glob takes no absolute pattern
    matched = sorted(found, key=natural)
    if not matched:
        raise UserError(f"{printable(name)}: the pattern matches nothing", "check it with ls")
    return [Path(match) for match in matched]


def is_report(path: Path) -> bool:
    """Whether a file is taken for a saved report, and not for a checkpoint."""
    return path.suffix.lower() == ".json" and not path.name.endswith(".index.json")


def _reports(path: Path, source: Source, progress: Progress | None) -> list[Report]:
    settings = source.settings or Settings()
    checks = choose(all_checks(), settings)  # a wrong code is refused before anything is read
    if is_report(path):
        if source.data or (source.user_model and source.user_model.runs):
            raise UserError(f"{printable(path)} is a saved report", "--data is for checkpoints")
        again = [(report, concluded(report, checks)) for report in load_reports(path)]
        changed = settings.select or settings.ignore or settings.limits
        return [judged if changed else _with_its_own(saved, judged) for saved, judged in again]
    reports = []
    first = source.data[0] if source.data else None
    with Session.open(
        path, data=first, user_model=source.user_model, settings=settings, progress=progress
    ) as session:
        for data in source.data or (None,):
            report = examine_session(session if data is first else session.with_data(data)).report
            if len(source.data) > 1:
                report = replace(report, notes=(*report.notes, f"examined with {data}"))
            reports.append(report)
    return reports


def _with_its_own(saved: Report, judged: Report) -> Report:
    """Return a report as its evidence is judged, with what it says of itself beyond that.

    A change by hand can so add a finding, and can take none away.
    """
    names = {finding.fingerprint for finding in judged.findings}
    more = tuple(finding for finding in saved.findings if finding.fingerprint not in names)
    crashed = tuple(o for o in saved.outcomes if o.status == "crashed" and o not in judged.outcomes)
    return replace(judged, findings=(*judged.findings, *more), outcomes=(*judged.outcomes, *crashed))


def load_reports(path: Path) -> tuple[Report, ...]:
    """Return the reports of a JSON file: the report of one checkpoint, or those of several.

    Raises:
        CheckpointError: if the file cannot be read, or is not a report of this version.
    """
    shown = printable(path)
    try:
        if path.stat().st_size > LARGEST_REPORT or not path.is_file():
            raise CheckpointError(shown, "not a saved report", WRITES_ONE)
        with path.open("rb") as file:
            data = parse(file.read())
    except OSError as error:
        raise CheckpointError(shown, error.strerror or str(error), "check the path") from error
    except UnicodeDecodeError as error:
        raise CheckpointError(shown, "not a saved report: it is not text", WRITES_ONE) from error
    except ValueError as error:
        raise CheckpointError(shown, f"no valid JSON ({error})", "write the report again") from error
    if not isinstance(data, dict) or "schema" not in data:
        raise CheckpointError(shown, "JSON, but no vqdoctor report", WRITES_ONE)
    parts = data["reports"] if isinstance(data.get("reports"), list) else [data]
    if not parts or not all(isinstance(part, dict) for part in parts):
        raise CheckpointError(shown, "holds no report", "write it again")
    try:
        reports = tuple(Report.from_dict(part) for part in parts)
        for report in reports:
            require_possible(report)
        if (layers := sum(len(report.layers) for report in reports)) > MOST_LAYERS:
            raise UserError(f"reports on {layers:,} VQ layers, and {MOST_LAYERS:,} are judged at the most")
        return reports
    except CheckpointError:
        raise
    except UserError as error:
        raise CheckpointError(shown, printable(error.what), error.hint) from error


def _unreadable(path: Path, error: CheckpointError) -> Report:
    """Return the report of a file that cannot be read: it fails, so that no format shows it as passed."""
    reason = f"{error.kind}: {error.hint}" if error.hint else error.kind
    summary = CheckpointSummary(
        path=printable(path), fingerprint="", sha256=None, container="unreadable", bytes=0
    )
    return Report(
        version=vqdoctor.__version__,
        checkpoint=summary,
        layers=(),
        evidence=(),
        unavailable=(),
        outcomes=(),
        findings=(),
        plan=(),
        verdict="inconclusive",
        gate=Gate.of([replace(certain("readable", ">=", 1, 0, reason), status="fail")]),
    )
