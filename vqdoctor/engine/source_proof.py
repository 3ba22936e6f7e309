"""The proof of a patch: an examination in a process of its own, which sees the patched source as the file."""

from __future__ import annotations

import itertools
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from importlib.machinery import SourceFileLoader
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

from vqdoctor.core.errors import UserError
from vqdoctor.core.frozen import frozen
from vqdoctor.core.report import Report
from vqdoctor.core.settings import Settings, UserModel
from vqdoctor.engine.examine import examine_session
from vqdoctor.engine.session import Session
from vqdoctor.engine.source_layers import SourceLayer, layers_of

FRESH_STEPS = 200
"""Steps of a training from scratch. An EMA layer with its own revival (VideoGPT's style, 64 codes, digits)
shows its collapse after them, and does not once it is patched."""
IMPORT_LIMIT = 120.0
"""Seconds that the user's files may take until they are imported, torch and its libraries with them: a cold
start of the largest of those on a network disk takes half of it."""
RUN_LIMIT = 3600.0
"""Seconds that an examination, or a training of `FRESH_STEPS`, may take."""
GONE = "the examination of the patched file no longer finds {}"
GONE_AFRESH = "after {} steps from scratch the unpatched file shows {}, and the patched one does not"

Wanted = Sequence[tuple[str, str | None]]
"""Codes that must be gone, each with its layer; None is the whole model."""


@frozen
class Examined:
    """The result of an examination in a process of its own.

    Attributes:
        report: its report.
        layers: its VQ layers.
        imported: whether the model's files import the source.
    """

    report: Report
    layers: tuple[SourceLayer, ...]
    imported: bool = True


@frozen
class Proof:
    """The result of an examination of a patched file.

    Attributes:
        report: its report, without the findings that a training from scratch no longer has; None where it
            failed.
        layers: its VQ layers.
        left: the codes that it still finds, or can no longer judge.
        how: what proves the patch; "" where it is not proven.
        failed: the error of the patched source; "" without one.
    """

    report: Report | None = None
    layers: tuple[SourceLayer, ...] = ()
    left: tuple[str, ...] = ()
    how: str = ""
    failed: str = ""


@dataclass(kw_only=True, eq=False)
class Prover:
    """Examines versions of one file.

    Attributes:
        source: the file.
        text: what it held when it was read.
        path: the checkpoint.
        data: the data, as for `examine`.
        user_model: the model or the task.
        settings: the user's settings.
    """

    source: Path
    text: bytes
    path: str | os.PathLike[str]
    data: object
    user_model: UserModel
    settings: Settings
    _unpatched: Examined | UserError | None = field(default=None, init=False)

    def first(self) -> Examined:
        """Examine the file as it is, with all that the user's settings ask for.

        Raises:
            UserError: if that is impossible.
        """
        found = self._run(self.text, 0, self.settings)
        if isinstance(found, UserError):
            raise found
        return found

    def prove(self, text: bytes, wanted: Wanted, codebook: str = "") -> Proof:
        """Examine the file with this text, and say whether these codes are gone.

        The layer of the codebook, as the model calls it, may have another name in the patched file.

        Where a code is still found, or cannot be judged, a training from scratch decides, if there is a task.
        """
        examined = self._run(text, 0)
        if isinstance(examined, UserError):
            return Proof(failed=str(examined))
        report, layers = examined.report, examined.layers
        name = next((at.name for at in layers if codebook and at.keys.get("codebook") == codebook), None)
        left = _left(report, [(code, at and (name or at)) for code, at in wanted])
        codes = _codes(left)
        if not left:
            return Proof(report=report, layers=layers, how=GONE.format(", ".join(_codes(wanted))))
        if self.user_model.task is None:
            return Proof(report=report, layers=layers, left=codes)
        if self._unpatched is None:
            self._unpatched = self._run(self.text, FRESH_STEPS)
        if isinstance(self._unpatched, UserError):
            return Proof(report=report, layers=layers, left=codes)
        shown = {(finding.code, finding.layer) for finding in self._unpatched.report.findings}
        if not shown & set(left):
            return Proof(report=report, layers=layers, left=codes)
        afresh = self._run(text, FRESH_STEPS)
        if isinstance(afresh, UserError):
            return Proof(failed=str(afresh))
        if still := _left(afresh.report, left):
            return Proof(report=report, layers=layers, left=_codes(still))
        told = ", ".join(_codes([one for one in left if one in shown]))
        gone = shown - {(finding.code, finding.layer) for finding in afresh.report.findings}
        kept = tuple(f for f in report.findings if (f.code, f.layer) not in gone)
        how = GONE_AFRESH.format(FRESH_STEPS, told)
        return Proof(report=replace(report, findings=kept), layers=layers, how=how)

    def _run(self, text: bytes, steps: int, settings: Settings | None = None) -> Examined | UserError:
        """Examine the file with this text in a fresh process; with steps, after a training from scratch."""
        settings = settings or replace(self.settings, decide=False, probe_steps=0)
        given = (str(self.source.resolve()), text, self.path, self.data, self.user_model, settings, steps)
        context = get_context("spawn")
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(target=_examined, args=(theirs, *given))
        try:
            process.start()
            theirs.close()
            for limit, doing in ((IMPORT_LIMIT, "importing your files"), (RUN_LIMIT, "running your model")):
                if not ours.poll(limit):
                    return UserError(f"{doing} takes more than {limit:.0f} s", "does the code wait, or loop?")
                told = ours.recv()
                if isinstance(told, Examined | UserError):
                    return told
            raise AssertionError("a process sends its result as the second message")
        except EOFError:
            process.join()
            what = f"your code ended its process, with exit code {process.exitcode}"
            return UserError(what, "look for os._exit or a crash of a library in what the model imports")
        finally:
            ours.close()
            if process.pid is not None:
                process.kill()
                process.join()


def _codes(wanted: Wanted) -> tuple[str, ...]:
    return tuple(dict.fromkeys(code for code, _ in wanted))


def _left(report: Report, wanted: Wanted) -> list[tuple[str, str | None]]:
    """Return the codes that a report still finds, or does not pass on that layer."""
    found = {(finding.code, finding.layer) for finding in report.findings}
    passed = {(outcome.code, outcome.layer) for outcome in report.outcomes if outcome.status == "passed"}
    return [one for one in wanted if one in found or one not in passed]


def _examined(
    told: Connection,
    source: str,
    text: bytes,
    path: str | os.PathLike[str],
    data: object,
    user_model: UserModel,
    settings: Settings,
    steps: int,
) -> None:
    """Examine with a file that has another text, in a process of its own; what is printed goes to stderr.

    Its first message says that the user's files are imported, and its second is the result.
    """
    os.dup2(2, 1)
    _serve(source, text)
    try:
        _import(user_model)
        told.send("imported")
        with tempfile.TemporaryDirectory() as folder:
            if steps:
                path = Path(folder) / "model.pt"
                _train(path, user_model, settings, steps)
            with Session.open(path, data=data, user_model=user_model, settings=settings) as session:
                done = examine_session(session)
                layers = layers_of(session, done.views)
        files = {getattr(module, "__file__", None) for module in list(sys.modules.values())}
        imported = source in {os.path.realpath(file) for file in files if file}
        told.send(Examined(report=done.report, layers=layers, imported=imported))
    except UserError as error:
        told.send(UserError(error.what, error.hint))


def _import(user_model: UserModel) -> None:
    """Import what the user names.

    Raises:
        UserError: if that fails.
    """
    from vqdoctor.models.user_code import load_object

    for named, option in ((user_model.task, "--task"), (user_model.model, "--model")):
        if isinstance(named, str) and named != "hf":
            load_object(named, option)


def _serve(source: str, text: bytes) -> None:
    """Let every import of a file get another text, and no compiled one."""
    sys.dont_write_bytecode = True
    read, stats = SourceFileLoader.get_data, SourceFileLoader.path_stats

    def is_it(path: str) -> bool:
        return os.path.realpath(path) == source

    def get_data(self: SourceFileLoader, path: str) -> bytes:
        return text if is_it(path) else read(self, path)

    def path_stats(self: SourceFileLoader, path: str) -> object:
        if is_it(path):
            raise OSError("this text is not the file's")  # so that no compiled file is looked for
        return stats(self, path)

    SourceFileLoader.get_data = get_data  # type: ignore[assignment,method-assign]
    SourceFileLoader.path_stats = path_stats  # type: ignore[assignment,method-assign]


def _train(target: Path, user_model: UserModel, settings: Settings, steps: int) -> None:
    """Train a new model of the task for some steps, and save it with its optimizer.

    Raises:
        UserError: if the user's code fails.
    """
    import torch

    from vqdoctor.engine.build_model import users_task
    from vqdoctor.models.guarded_task import GuardedTask
    from vqdoctor.models.untouched import same_randomness
    from vqdoctor.models.user_code import blamed
    from vqdoctor.training.optimizer import optimizers_of

    with same_randomness(settings.seed), blamed("the training of the patched source"):
        task = GuardedTask(users_task(user_model.task), user_model.trained_vq_weight, None)
        model = task.model().train()
        optimizers = optimizers_of(task, model)
        weight = 1.0 if task.vq_weight is None else task.vq_weight
        served = itertools.chain.from_iterable(task.batches("train") for _ in itertools.count())
        for batch in itertools.islice(served, steps):
            losses = task.losses(model, batch)
            total = losses.task if losses.vq is None else losses.task + weight * losses.vq
            optimizers.step(total, losses.further, ())
        state = {"model": model.state_dict(), "optimizer": optimizers.main.state_dict()}
        torch.save(state, target)
