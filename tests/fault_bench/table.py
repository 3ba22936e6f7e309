"""The table: every patient of the fault bench, examined bare and live."""

from __future__ import annotations

import hashlib
import logging
import multiprocessing
import os
import warnings
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch

from fault_bench.host import BenchTask, save
from fault_bench.setup import Setup
from vqdoctor.core.report import Report
from vqdoctor.core.settings import UserModel
from vqdoctor.engine import examine, exit_code

_RESULT_ONLY = {
    "__main__.py",
    "bench.py",
    "cures.py",
    "faults.py",
    "healthy.py",
    "kinds.py",
    "sample.py",
    "summary.py",
    "table.py",
    "test_bench.py",
    "test_treat.py",
    "treat.py",
}


@dataclass(frozen=True, kw_only=True)
class Patient:
    """A training and how the table names it.

    Attributes:
        setup: the training.
        name: the fault's name; "healthy" where there is none.
        code: the code that must come first; None where nothing must be an error.
        told_by_file: whether the file alone can tell.
        also: codes that must be named too, with a model.
    """

    setup: Setup
    name: str
    code: str | None
    told_by_file: bool
    also: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Row:
    """What a patient's two reports say; a finding is its code and the first letter of its severity.

    Attributes:
        bare: the roots that the file alone shows, first to last.
        live: those with a model.
        named: all codes of findings with a model, symptoms too.
    """

    patient: Patient
    bare: tuple[str, ...]
    live: tuple[str, ...]
    named: frozenset[str]
    bare_exit: int
    live_exit: int
    usage: str

    @property
    def right_bare(self) -> bool:
        return _first(self.bare) == self.patient.code

    @property
    def right_live(self) -> bool:
        return _first(self.live) == self.patient.code and self.named.issuperset(self.patient.also)

    def line(self) -> str:
        setup = self.patient.setup
        told = ("" if self.right_bare else "MISSED ") if self.patient.told_by_file else "not told "
        live = "" if self.patient.code is None or self.right_live else "MISSED "
        return (
            f"{self.patient.name:<32} {self.patient.code or '':<6} {setup.implementation:<22} "
            f"{setup.data:<14} {setup.codes:>5} {setup.seed}  live {self.live_exit} {live}"
            f"{' '.join(self.live[:4]) or '-':<34} bare {self.bare_exit} "
            f"{told if self.patient.code else ''}{' '.join(self.bare[:3]) or '-':<24} perplexity {self.usage}"
        )


def examined(patients: Iterable[Patient], folder: Path) -> Iterator[Row]:
    """Train what is not in the folder yet, and examine all, on every core; in the order given."""
    context = multiprocessing.get_context("spawn")
    jobs = [(patient, folder) for patient in patients]
    with ProcessPoolExecutor(os.cpu_count(), mp_context=context) as pool:
        yield from pool.map(_row, jobs)


def _row(job: tuple[Patient, Path]) -> Row:
    patient, folder = job
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    path = save(patient.setup, folder / f"{key(patient.setup)}.pt")
    bare = examine(path)
    live = examine(path, user_model=UserModel(task=BenchTask(patient.setup)))
    layers = live.to_dict()["layers"]
    usage = " ".join(f"{u['perplexity']:.0f}" if (u := layer["usage"]) else "?" for layer in layers)
    return Row(
        patient=patient,
        bare=_findings(bare),
        live=_findings(live),
        named=frozenset(finding.code for finding in live.findings),
        bare_exit=int(exit_code(bare)),
        live_exit=int(exit_code(live)),
        usage=usage,
    )


def _findings(report: Report) -> tuple[str, ...]:
    """Return the roots, first to last; the symptoms hang under them."""
    return tuple(f"{f.code}{f.severity.label[0]}" for f in report.findings if f.explained_by is None)


def _first(findings: tuple[str, ...]) -> str | None:
    return findings[0][:-1] if findings else None


def key(setup: Setup) -> str:
    """Return what names a training: its settings, the code that trains, and the libraries' versions."""
    return hashlib.sha256(f"{setup!r} {_sources()}".encode()).hexdigest()[:24]


@cache
def _sources() -> str:
    files = [path for path in sorted(Path(__file__).parent.glob("*.py")) if path.name not in _RESULT_ONLY]
    digest = hashlib.sha256(torch.__version__.encode())
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()
