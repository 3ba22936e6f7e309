"""The bench: every model of the sample trained, examined bare and live, and judged; what is done is kept.

A folder holds all of it: `models/` the checkpoints, beside each a task for the command line, and the figures
of the healthy twins; `rows.jsonl` what was said of each model. A row counts for the tool and the training
that it was made with, so a changed tool examines again and trains nothing.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import logging
import multiprocessing
import time
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import torch

import vqdoctor
from fault_bench.host import BenchTask, save, train
from fault_bench.kinds import Kind
from fault_bench.sample import Model
from fault_bench.setup import Setup
from fault_bench.table import key
from vqdoctor.core.report import Report
from vqdoctor.core.settings import Settings, UserModel
from vqdoctor.engine import examine, exit_code

POINTS, LOSS_SHARE = 0.05, 0.2
"""A fault does harm from this loss of accuracy on, or this growth of the loss without labels."""
Done = TypeVar("Done")
Root = tuple[str, str, str]
"""Code, severity and message of a finding that no other explains."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """What was said of one model.

    Attributes:
        live: the roots with the user's task, first to last.
        bare: those of the file alone.
        live_errors: codes of all findings with the task that are errors, symptoms too.
        bare_errors: those of the file alone.
        figure: accuracy, or squared error over the variance of the samples, of val.
        twin: that of the healthy twin.
        perplexity: of each layer, with the task; None where the report has none.
        seconds: CPU seconds of the training, the twin's, and the two examinations.
        crash: the traceback where something broke.
    """

    number: int
    key: str
    tool: str
    live: tuple[Root, ...] = ()
    bare: tuple[Root, ...] = ()
    live_errors: tuple[str, ...] = ()
    bare_errors: tuple[str, ...] = ()
    live_exit: int = 2
    bare_exit: int = 2
    figure: float = 0.0
    twin: float = 0.0
    perplexity: tuple[float | None, ...] = ()
    seconds: tuple[float, ...] = ()
    crash: str = ""

    @classmethod
    def read(cls, line: str) -> Row:
        found = json.loads(line)
        for name in ("live", "bare"):
            found[name] = tuple(tuple(root) for root in found[name])
        for name in ("live_errors", "bare_errors", "perplexity", "seconds"):
            found[name] = tuple(found[name])
        return cls(**found)


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """A model and what was said of it, judged by what is wrong with it."""

    model: Model
    row: Row

    @property
    def told(self) -> bool:
        """Whether the file alone tells any of its faults."""
        return any(kind.told_by_file(self.model.setup.implementation) for kind in self.model.kinds)

    @property
    def right_live(self) -> bool:
        """Whether the first finding names a fault; for a healthy model, whether nothing is an error."""
        if not self.model.kinds:
            return not self.row.live_errors and not self.row.crash
        return any(_names(kind, self.row.live[:1], bare=False) for kind in self.model.kinds)

    @property
    def right_bare(self) -> bool:
        if not self.model.kinds:
            return not self.row.bare_errors and not self.row.crash
        return self.told and any(_names(kind, self.row.bare[:1], bare=True) for kind in self.model.kinds)

    @property
    def both(self) -> bool:
        """Whether each fault is among as many first causes as there are faults; levels share a cause."""
        causes = list(dict.fromkeys(code for code, _, _ in self.row.live))[: len(self.model.kinds)]
        first = [root for root in self.row.live if root[0] in causes]
        return all(_names(kind, first, bare=False) for kind in self.model.kinds)

    @property
    def harm(self) -> float:
        """Accuracy that the fault costs, or the share by which the loss grows."""
        row = self.row
        return row.twin - row.figure if self.model.labelled else row.figure / max(row.twin, 1e-9) - 1

    @property
    def harmful(self) -> bool:
        return bool(self.model.kinds) and self.harm > (POINTS if self.model.labelled else LOSS_SHARE)

    @property
    def missed(self) -> bool:
        """Whether anything that must be right is wrong."""
        wrong_bare = (self.told or not self.model.kinds) and not self.right_bare
        return (
            not self.right_live or wrong_bare or not self.both or (self.harmful and not self.row.live_errors)
        )


def _names(kind: Kind, roots: Iterable[Root], *, bare: bool) -> bool:
    return any(kind.is_named(code, bare=bare) for code, _, _ in roots)


def verdicts(
    models: Iterable[Model], folder: Path, jobs: int = 1, *, twins: bool = True, decide: bool = False
) -> Iterator[Verdict]:
    """Do what the folder does not hold yet; in the order in which they are done.

    Args:
        models: what to do.
        folder: where everything is kept.
        jobs: how many processes work at once.
        twins: whether the healthy twins are trained; without them nothing is known of the harm.
        decide: whether the examination with the task also tries the causes, as `inspect --decide` does.
    """
    models = list(models)
    (folder / "models").mkdir(parents=True, exist_ok=True)
    kept = folder / ("rows-decide.jsonl" if decide else "rows.jsonl")
    done = {row.number: row for row in _lines(kept)}
    left = []
    for model in models:
        row = done.get(model.number)
        if row is not None and not row.crash and (row.key, row.tool) == (key(model.setup), tool()):
            yield Verdict(model=model, row=row)
        else:
            left.append(model)
    for model, row in spread(examined, left, jobs, folder, twins, decide):
        with kept.open("a") as file:
            file.write(json.dumps(asdict(row)) + "\n")
        yield Verdict(model=model, row=row)


def _lines(path: Path) -> Iterator[Row]:
    if path.exists():
        yield from map(Row.read, path.read_text().splitlines())


def spread(
    do: Callable[..., Done], models: Iterable[Model], jobs: int, *more: object
) -> Iterator[tuple[Model, Done]]:
    """Call `do(model, *more)` for every model, in as many processes; in the order in which they end."""
    if jobs == 1:
        yield from ((model, do(model, *more)) for model in models)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=context) as pool:
        waiting = {pool.submit(do, model, *more): model for model in models}
        for future in as_completed(waiting):
            yield waiting[future], future.result()


def file(model: Model, folder: Path) -> Path:
    """Return where a model's checkpoint lies; its task lies beside it, as .py."""
    return folder / "models" / f"{model.number:03d}-{key(model.setup)[:8]}.pt"


def trained(model: Model, folder: Path) -> Path:
    """Train a model unless it lies there, and write its task beside it."""
    path = save(model.setup, file(model, folder))
    path.with_suffix(".py").write_text(_task(model))
    return path


def examined(model: Model, folder: Path, twins: bool, decide: bool) -> Row:
    """Train a model unless it lies there, examine it bare and live, and compare it with its twin."""
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    row = Row(number=model.number, key=key(model.setup), tool=tool())
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _examined(model, folder, row, twins, Settings(decide=decide))
    except Exception:
        return Row(**asdict(row) | {"crash": traceback.format_exc(limit=-6)})


def _examined(model: Model, folder: Path, row: Row, twins: bool, settings: Settings) -> Row:
    clock = [time.process_time()]
    path = trained(model, folder)
    saved = torch.load(path, weights_only=True)
    figure = _figure(model.setup, saved["model"])
    clock.append(time.process_time())
    twin = _twin(model.twin, folder) if twins and model.kinds else figure
    clock.append(time.process_time())
    bare = examine(path)
    clock.append(time.process_time())
    live = examine(path, user_model=UserModel(task=BenchTask(model.setup)), settings=settings)
    clock.append(time.process_time())
    layers = live.to_dict()["layers"]
    return Row(
        number=row.number,
        key=row.key,
        tool=row.tool,
        live=_roots(live),
        bare=_roots(bare),
        live_errors=_errors(live),
        bare_errors=_errors(bare),
        live_exit=int(exit_code(live)),
        bare_exit=int(exit_code(bare)),
        figure=figure,
        twin=twin,
        perplexity=tuple(layer["usage"] and layer["usage"]["perplexity"] for layer in layers),
        seconds=tuple(round(b - a, 2) for a, b in itertools.pairwise(clock)),
    )


def _roots(report: Report) -> tuple[Root, ...]:
    roots = [f for f in report.findings if f.explained_by is None]
    return tuple((f.code, f.severity.label, f.message) for f in roots)


def _errors(report: Report) -> tuple[str, ...]:
    return tuple(sorted({f.code for f in report.findings if f.severity.label == "error"}))


@torch.no_grad()
def _figure(setup: Setup, state: dict[str, Any]) -> float:
    """Return val's accuracy, or without labels its squared error over the variance of the samples."""
    task = BenchTask(setup)
    model = task.model()
    model.load_state_dict(state, strict=False)  # a flag that was not saved is one of the faults
    model.eval()
    with torch.random.fork_rng(devices=[]):
        outputs = [(model(x), x, y) for x, y in task.batches("val")]
    if task.labels:
        hits = torch.cat([output["logits"].argmax(1) == y for output, _, y in outputs])
        return float(hits.float().mean())
    samples = torch.cat([x for _, x, _ in outputs])
    error = (torch.cat([output["recon"] for output, _, _ in outputs]) - samples).square().mean()
    return float((error / samples.var()).nan_to_num(nan=1e9, posinf=1e9))


def _twin(setup: Setup, folder: Path) -> float:
    kept = folder / "models" / f"twin-{key(setup)}.json"
    if not kept.exists():
        kept.write_text(json.dumps(_figure(setup, train(setup)["model"])))
    return float(json.loads(kept.read_text()))


def _task(model: Model) -> str:
    """Return a file with the task as its user would write it, for `--task`."""
    return (
        f'"""{model.name}: {model.setup.implementation} on {model.setup.data}."""\n\nimport sys\n\n'
        f"sys.path.insert(0, {str(Path(__file__).parents[1])!r})\n\n"
        "from fault_bench.host import BenchTask\nfrom fault_bench.setup import Setup\n\n"
        f"task = BenchTask({model.setup!r})\n"
    )


@cache
def tool() -> str:
    digest = hashlib.sha256()
    for source in sorted(Path(vqdoctor.__file__).parent.rglob("*.py")):
        digest.update(source.read_bytes())
    return digest.hexdigest()[:16]
