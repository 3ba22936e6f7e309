"""A study on disk: one file for each training, each whole or absent. Importing this loads no torch."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from vqdoctor.core.ablation import Cost, Latency, Run, Study
from vqdoctor.core.codec import decode, encode
from vqdoctor.core.errors import UserError
from vqdoctor.core.files import write_whole
from vqdoctor.core.frozen import frozen
from vqdoctor.core.json_text import parse

STUDY, RUNS, LATENCIES = "study.json", "runs", "latencies.json"
"""The files of a study in its folder: its cells, the finished trainings, and the time of a batch."""
LARGEST = 16 << 20
AGAIN = "delete it: the same command does this training again"


@frozen
class _Done:
    """A training that is done, as its file holds it."""

    identity: str
    run: Run
    cost: Cost


@frozen
class _Timed:
    """The time of a batch for each model, as their file holds it."""

    identity: str
    latencies: tuple[Latency, ...]


class Kept:
    """A study in a folder.

    Attributes:
        folder: the folder.
    """

    def __init__(self, folder: Path, study: Study) -> None:
        self.folder, self._study = folder, study
        self._done: dict[tuple[str, int], _Done] = {}
        self._latencies: dict[str, Latency] = {}

    @classmethod
    def open(cls, folder: Path, study: Study) -> Kept:
        """Take up a study in a folder, or begin it there.

        Raises:
            UserError: if the folder holds another study or damaged files, or cannot be written.
        """
        kept = cls(folder, study)
        if (folder / STUDY).exists():
            there = load_study(folder)
            if there.identity != study.identity:
                what = (
                    f"{folder} holds the study of {there.subject}, with other options, data, code or versions"
                )
                raise UserError(what, "give another --out, or delete it")
            kept.read(folder)
        else:
            kept._write(folder / STUDY, encode(study))
        return kept

    @property
    def study(self) -> Study:
        """The study with all that is done, in its own order."""
        done = [self._done[key] for key in self._study.trainings if key in self._done]
        names = dict.fromkeys(run for run, _ in self._study.trainings)
        return replace(
            self._study,
            runs=tuple(one.run for one in done),
            costs=tuple(one.cost for one in done),
            latencies=tuple(self._latencies[name] for name in names if name in self._latencies),
        )

    def has(self, run: str, seed: int) -> bool:
        """Whether a training is done."""
        return (run, seed) in self._done

    def add(self, run: Run, cost: Cost) -> None:
        """Keep a training that is done."""
        done = _Done(identity=self._study.identity, run=run, cost=cost)
        self._write(self.folder / RUNS / f"{run.run}-seed-{run.seed}.json", encode(done))
        self._done[run.run, run.seed] = done

    def add_latency(self, latency: Latency) -> None:
        """Keep the time of a batch."""
        self._latencies[latency.run] = latency
        timed = _Timed(identity=self._study.identity, latencies=tuple(self._latencies.values()))
        self._write(self.folder / LATENCIES, encode(timed))

    def read(self, folder: Path) -> None:
        """Take in what a folder of the same study holds; what is known already stays.

        Raises:
            UserError: if a file is damaged, or of another study.
        """
        files = (folder / RUNS / f"{run}-seed-{seed}.json" for run, seed in self._study.trainings)
        for file in filter(Path.exists, files):  # another file there is none of the study's
            done = decode(_Done, _json(file), str(file), AGAIN)
            if done.identity != self._study.identity:
                raise UserError(f"{file}: of another study", "delete it")
            self._done.setdefault((done.run.run, done.run.seed), done)
        if (folder / LATENCIES).exists():
            timed = decode(_Timed, _json(folder / LATENCIES), str(folder / LATENCIES), "delete it")
            if timed.identity == self._study.identity:
                for latency in timed.latencies:
                    self._latencies.setdefault(latency.run, latency)

    def _write(self, file: Path, plain: object) -> None:
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            write_whole(file, json.dumps(plain, indent=1, allow_nan=False) + "\n")
        except OSError as error:
            raise UserError(f"{file}: {error.strerror or error}", "write elsewhere with --out") from error


def load_study(folder: Path) -> Study:
    """Return the study of a folder, without its trainings.

    Raises:
        UserError: if there is none.
    """
    file = folder / STUDY
    if not file.is_file():
        raise UserError(f"{folder}: holds no study", "name a folder that vqdoctor ablate --out wrote")
    return decode(Study, _json(file), str(file), "name another folder")


def merge(folders: Sequence[Path], out: Path) -> Study:
    """Join the shards of one study in a folder, and return the study.

    Raises:
        UserError: if they are of different studies, or a file is damaged or cannot be written.
    """
    studies = [load_study(folder) for folder in folders]
    for folder, study in zip(folders, studies, strict=True):
        if study.identity != studies[0].identity:
            what = f"{folders[0]} and {folder} are of different studies"
            raise UserError(what, "run every shard with the same options, data and versions")
    kept = Kept.open(out, studies[0])
    for folder in folders:
        kept.read(folder)
    joined = kept.study
    for run, cost in zip(joined.runs, joined.costs, strict=True):
        kept.add(run, cost)
    for latency in joined.latencies:
        kept.add_latency(latency)
    return joined


def _json(file: Path) -> object:
    try:
        if file.stat().st_size > LARGEST:
            raise UserError(f"{file}: too large", "name a folder that vqdoctor ablate --out wrote")
        return parse(file.read_bytes())
    except OSError as error:
        raise UserError(f"{file}: {error.strerror or error}", "check the path") from error
    except ValueError as error:
        raise UserError(f"{file}: no valid JSON ({error})", AGAIN) from error
