"""Checkpoints side by side: each is opened once, and only the codes of the one before are kept."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import vqdoctor
from vqdoctor.checkpoint.folders import all_in
from vqdoctor.core.comparison import Began, ComparedLayer, Comparison, MovedCode, Ranks
from vqdoctor.core.errors import UserError
from vqdoctor.core.evidence import TrainingRecord
from vqdoctor.core.frozen import frozen
from vqdoctor.core.levels import Severity
from vqdoctor.core.report import Report
from vqdoctor.core.settings import Settings, UserModel
from vqdoctor.engine.examine import examine_session
from vqdoctor.engine.gate import expand, is_report, load_reports
from vqdoctor.engine.session import Progress, Session
from vqdoctor.layouts.view import Array
from vqdoctor.probes._agreement import Apart, rank_of, without_rank

STILL = 1e-6
"""A code is where it was up to this share of the codes' distance from their mean: float32's rounding."""
FARTHEST = 8
"""Codes that are named: the farthest from the reference."""


@frozen
class _Looked:
    """One checkpoint: its report, its finite codes by layer, and its frozen tables as they are stored."""

    report: Report
    codes: Mapping[str, Array] = field(default_factory=dict)
    frozen: Mapping[str, NDArray[Any]] = field(default_factory=dict)


def compare(
    names: Sequence[str],
    *,
    reference: Path | None = None,
    user_model: UserModel | None = None,
    settings: Settings | None = None,
    progress: Progress | None = None,
) -> Comparison:
    """Compare checkpoints, run folders and saved reports, in the order of their steps where these are known.

    Raises:
        UserError: if a file cannot be read, there is only one, or the reference shares no layer with them.
    """
    say = progress or (lambda _: None)
    paths = [path for name in names for path in _files(name)]
    if len(paths) < 2 and reference is None:
        for path in paths:
            next(_look(path, UserModel(), Settings()))  # one that cannot be read is the first thing to say
        raise UserError("there is one checkpoint, and nothing to compare it with", "name a folder, or two")
    settings, user_model = settings or Settings(), user_model or UserModel()
    base = None if reference is None else next(_look(reference, user_model, settings))
    rows: list[ComparedLayer] = []
    began: dict[str, Began] = {}
    errors: list[str] = []
    before: dict[int | None, _Looked] = {}
    together = _Together(paths)
    for number, path in enumerate(_by_step(paths), start=1):
        say(f"{number} of {len(paths)}: {path}")
        for looked in _look(path, user_model, settings):
            rank = rank_of(path.name)
            then = before.get(rank)
            rows += _rows(path, looked, then, base)
            _note(began, path, looked.report)
            errors += _frozen_moves(path, looked, base or then)
            together.add(path, looked)
            if looked.codes:
                before[rank] = looked
    if base and not base.codes.keys() & {row.layer for row in rows}:
        raise UserError(f"{reference}: shares no VQ layer with the others", "name their base")
    return Comparison(
        version=vqdoctor.__version__,
        reference=None if reference is None else os.fspath(reference),
        rows=tuple(rows),
        began=tuple(began.values()),
        errors=tuple(errors),
        ranks=tuple(together.found.values()),
    )


class _Together:
    """The files that the processes of a training saved of the same checkpoint, as they come.

    The codes of the first of them are kept as long as others are to come.

    Attributes:
        found: their path without the number and the layer, to how they agree.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self.found: dict[tuple[str, str], Ranks] = {}
        self._left = Counter(_without_rank(path) for path in paths if rank_of(path.name) is not None)
        self._left = +Counter({name: count for name, count in self._left.items() if count > 1})
        self._first: dict[str, _Looked] = {}

    def add(self, path: Path, looked: _Looked) -> None:
        """Compare a file with the first one of its checkpoint."""
        name = _without_rank(path)
        if not self._left[name]:
            return
        record = looked.report.find(TrainingRecord)
        step = None if record is None else record.updates
        first = self._first.setdefault(name, looked)
        for layer, codes in looked.codes.items():
            theirs = first.codes.get(layer)
            if theirs is None or theirs.shape != codes.shape:
                continue
            known = self.found.get((name, layer), Ranks(path=name, step=step, layer=layer, files=0))
            apart = Apart.of(theirs, codes)
            self.found[name, layer] = replace(
                known,
                files=known.files + 1,
                differing=known.differing + (apart.codes > 0),
                codes=max(known.codes, apart.codes),
                worst=max(known.worst, apart.typical),
            )
        self._left[name] -= 1
        if not self._left[name]:
            del self._first[name]


def _without_rank(path: Path) -> str:
    return os.fspath(path.with_name(without_rank(path.name)))


def _files(name: str) -> Sequence[Path]:
    """Return the checkpoints of a run's folder, the oldest first, or the files that a name stands for."""
    folder = Path(name)
    if not (name.strip() and folder.is_dir()):
        return expand([name])
    found = all_in(folder)
    if not found:
        raise UserError(f"{name}: a folder without a checkpoint", "name a run's folder")
    return found


def _by_step(paths: Sequence[Path]) -> Sequence[Path]:
    """Return the files in the order of their steps where every file records them; else as they are."""
    steps: dict[Path, int] = {}
    for path in paths:
        if is_report(path):
            return paths
        with Session.open(path) as session:
            if session.record.updates is None:
                return paths
            steps[path] = session.record.updates
    return sorted(paths, key=lambda path: steps[path])


def _look(path: Path, user_model: UserModel, settings: Settings) -> Iterator[_Looked]:
    """Yield a checkpoint, or each saved report of a file."""
    if is_report(path):
        yield from (_Looked(report=report) for report in load_reports(path))
        return
    with Session.open(path, data=settings.batch, user_model=user_model, settings=settings) as session:
        report = examine_session(session).report
        views = session.found.views
        codes = {view.name: view.codebook.copy() for view in views if np.isfinite(view.codebook).all()}
        tables = session.checkpoint.tensors
        frozen = {view.name: tables[view.keys["codebook"]].read() for view in views if view.frozen}
        yield _Looked(report=report, codes=codes, frozen=frozen)


def rows_of(path: Path, user_model: UserModel, settings: Settings) -> Iterator[ComparedLayer]:
    """Yield the rows of a checkpoint on its own.

    Raises:
        UserError: if it cannot be read.
    """
    for looked in _look(path, user_model, settings):
        yield from _rows(path, looked, None, None)


def _rows(
    path: Path, looked: _Looked, before: _Looked | None, base: _Looked | None
) -> Iterator[ComparedLayer]:
    """Yield the rows of a checkpoint."""
    report = looked.report
    record = report.find(TrainingRecord)
    for layer in report.layers:
        own = [f for f in report.findings if f.layer in (layer.name, None) and f.severity > Severity.NOTE]
        row = ComparedLayer(
            path=os.fspath(path),
            step=None if record is None else record.updates,
            layer=layer.name,
            num_codes=layer.num_codes,
            verdict=report.verdict,
            finding=own[0].code if own else None,
            rank=rank_of(path.name),
        )
        usage = next(iter(report.usages(layer.name).values()), None)
        if usage is not None:
            row = replace(
                row,
                source=usage.source,
                perplexity=usage.perplexity,
                perplexity_low=usage.perplexity_low,
                perplexity_high=usage.perplexity_high,
                active=usage.active,
                dead=usage.num_codes - usage.active,
                max_share=usage.max_share,
            )
        ways, far = _ways(before, looked, layer.name), _ways(base, looked, layer.name)
        if ways is not None:
            row = replace(row, moved=_typical(ways), moved_codes=int((ways > STILL).sum()))
        if far is not None:
            first = [int(code) for code in np.argsort(-far, kind="stable")[:FARTHEST] if far[code] > STILL]
            row = replace(
                row,
                from_reference=_typical(far),
                moved_from_reference=int((far > STILL).sum()),
                farthest=tuple(MovedCode(code=code, way=float(far[code])) for code in first),
            )
        yield row


def _typical(ways: NDArray[np.float64]) -> float:
    """Return the root mean square of ways."""
    return float(np.sqrt(np.square(ways).mean()))


def _ways(then: _Looked | None, now: _Looked, layer: str) -> NDArray[np.float64] | None:
    """Return how far each code moved [K], over the codes' distance from their mean; None where unknown."""
    old, new = None if then is None else then.codes.get(layer), now.codes.get(layer)
    if old is None or new is None or old.shape != new.shape:
        return None
    spread = float(np.sqrt(np.square(old - old.mean(axis=0), dtype=np.float64).sum(axis=1).mean()))
    way = np.sqrt(np.square(new - old, dtype=np.float64).sum(axis=1))
    scale = spread or float(np.sqrt(np.square(old, dtype=np.float64).sum(axis=1).mean())) or 1.0
    found: NDArray[np.float64] = way / scale
    return found


def _note(began: dict[str, Began], path: Path, report: Report) -> None:
    """Note the findings of a checkpoint; those that it has first come in their ranking."""
    record = report.find(TrainingRecord)
    for finding in (f for f in report.findings if f.severity > Severity.NOTE):
        first = began.get(finding.fingerprint)
        began[finding.fingerprint] = (
            Began(
                code=finding.code,
                name=finding.name,
                layer=finding.layer,
                severity=finding.severity,
                path=os.fspath(path),
                step=None if record is None else record.updates,
                last=os.fspath(path),
                last_step=None if record is None else record.updates,
                root=finding.explained_by is None,
            )
            if first is None
            else replace(
                first,
                last=os.fspath(path),
                last_step=None if record is None else record.updates,
                severity=max(first.severity, finding.severity),
            )
        )


def _frozen_moves(path: Path, looked: _Looked, then: _Looked | None) -> Iterator[str]:
    """Yield a line for each frozen table that differs from the reference's, or from the one before."""
    for name, table in looked.frozen.items():
        old = None if then is None else then.frozen.get(name)
        if old is not None and old.shape == table.shape and (moved := int((old != table).any(axis=1).sum())):
            yield f"{path}: {moved:,} of {len(table):,} rows of the frozen table of {name} moved"
