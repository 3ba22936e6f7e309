"""The proof of a patch: an examination in a process of its own, which sees the patched source as the file."""

from __future__ import annotations

import itertools
import os
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field, replace
from importlib.machinery import SourceFileLoader
from multiprocessing import get_context
from pathlib import Path

from vqdoctor.core.errors import UserError
from vqdoctor.core.frozen import frozen
from vqdoctor.core.report import Report
from vqdoctor.core.settings import Settings, UserModel
from vqdoctor.engine.examine import examine

FRESH_STEPS = 200
"""Steps of a training from scratch. An EMA layer with its own revival (VideoGPT's style, 64 codes, digits)
shows its collapse after them, and does not once it is patched."""
GONE = "the examination of the patched file no longer finds {}"
GONE_AFRESH = "after {} steps from scratch the unpatched file shows {}, and the patched one does not"


@frozen
class Proof:
    """The result of an examination of a patched file.

    Attributes:
        report: its report, without the findings that a training from scratch no longer has; None where it
            failed.
        left: the codes that it still finds, or can no longer judge.
        how: what proves the patch; "" where it is not proven.
        failed: the error of the patched source; "" without one.
    """

    report: Report | None = None
    left: tuple[str, ...] = ()
    how: str = ""
    failed: str = ""


@dataclass(kw_only=True, eq=False)
class Prover:
    """Examines versions of one file.

    Attributes:
        source: the file.
        path: the checkpoint.
        data: the data, as for `examine`.
        user_model: the model or the task.
        settings: the user's settings.
    """

    source: Path
    path: str | os.PathLike[str]
    data: object
    user_model: UserModel
    settings: Settings
    _unpatched: Report | UserError | None = field(default=None, init=False)

    def prove(self, text: bytes, codes: Sequence[str]) -> Proof:
        """Examine the file with this text, and say whether these codes are gone.

        Where a code is still found, or cannot be judged, a training from scratch decides, if there is a task.
        """
        report = self._run(text, 0)
        if isinstance(report, UserError):
            return Proof(failed=str(report))
        left = _left(report, codes)
        if not left:
            return Proof(report=report, how=GONE.format(", ".join(codes)))
        if self.user_model.task is None:
            return Proof(report=report, left=left)
        if self._unpatched is None:
            self._unpatched = self._run(self.source.read_bytes(), FRESH_STEPS)
        if isinstance(self._unpatched, UserError):
            return Proof(report=report, left=left)
        shown = {finding.code for finding in self._unpatched.findings}
        if not shown & set(left):
            return Proof(report=report, left=left)
        afresh = self._run(text, FRESH_STEPS)
        if isinstance(afresh, UserError):
            return Proof(failed=str(afresh))
        if still := _left(afresh, left):
            return Proof(report=report, left=still)
        told = ", ".join(code for code in left if code in shown)
        gone = shown - {finding.code for finding in afresh.findings}
        kept = tuple(finding for finding in report.findings if finding.code not in gone)
        return Proof(report=replace(report, findings=kept), how=GONE_AFRESH.format(FRESH_STEPS, told))

    def _run(self, text: bytes, steps: int) -> Report | UserError:
        """Examine the file with this text in a fresh process; with steps, after a training from scratch."""
        settings = replace(self.settings, decide=False, probe_steps=0)
        given = (str(self.source.resolve()), text, self.path, self.data, self.user_model, settings, steps)
        try:
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
                return pool.submit(_examined, *given).result()
        except BrokenProcessPool:
            return UserError("the patched source ended its process")


def _left(report: Report, codes: Sequence[str]) -> tuple[str, ...]:
    """Return the codes that a report finds, or does not pass on any layer."""
    found = {finding.code for finding in report.findings}
    passed = {outcome.code for outcome in report.outcomes if outcome.status == "passed"}
    return tuple(code for code in codes if code in found or code not in passed)


def _examined(
    source: str,
    text: bytes,
    path: str | os.PathLike[str],
    data: object,
    user_model: UserModel,
    settings: Settings,
    steps: int,
) -> Report | UserError:
    """Examine with a file that has another text, in a process of its own; what is printed goes to stderr."""
    os.dup2(2, 1)
    _serve(source, text)
    try:
        if not steps:
            return examine(path, data=data, user_model=user_model, settings=settings)
        with tempfile.TemporaryDirectory() as folder:
            trained = Path(folder) / "model.pt"
            _train(trained, user_model, settings, steps)
            return examine(trained, data=data, user_model=user_model, settings=settings)
    except UserError as error:
        return UserError(error.what, error.hint)


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
    from vqdoctor.models.task import LEARNING_RATE
    from vqdoctor.models.untouched import same_randomness
    from vqdoctor.models.user_code import blamed

    with same_randomness(settings.seed), blamed("the training of the patched source"):
        task = GuardedTask(users_task(user_model.task), user_model.trained_vq_weight, None)
        model = task.model().train()
        build = getattr(task, "optimizer", None)
        built = build(model) if callable(build) else torch.optim.Adam(model.parameters(), lr=LEARNING_RATE)
        optimizers = built if isinstance(built, list | tuple) else [built]
        weight = 1.0 if task.vq_weight is None else task.vq_weight
        served = itertools.chain.from_iterable(task.batches("train") for _ in itertools.count())
        for batch in itertools.islice(served, steps):
            losses = task.losses(model, batch)
            total = losses.task if losses.vq is None else losses.task + weight * losses.vq
            for optimizer in optimizers:
                optimizer.zero_grad()
            if total.requires_grad:
                total.backward()  # type: ignore[no-untyped-call]
            optimizers[0].step()
        state = {"model": model.state_dict(), "optimizer": optimizers[0].state_dict()}
        torch.save(state, target)
