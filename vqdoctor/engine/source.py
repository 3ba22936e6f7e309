"""The plan in the user's source: each change is proposed, and proven by examining the patched file."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from vqdoctor.checks import all_checks
from vqdoctor.core.errors import MissingPackageError, UserError
from vqdoctor.core.evidence import TaskMetrics
from vqdoctor.core.levels import Severity
from vqdoctor.core.report import PlanStep, Report
from vqdoctor.core.settings import Settings, UserModel
from vqdoctor.core.source import SourcePatch, SourceStep
from vqdoctor.engine.examine import examine_session
from vqdoctor.engine.repair import require_remedies
from vqdoctor.engine.session import Progress, Session
from vqdoctor.engine.source_file import require_committed, write_over
from vqdoctor.engine.source_proof import Proof, Prover
from vqdoctor.engine.wording import setting_of
from vqdoctor.layouts import QuantizerView
from vqdoctor.remedies import all_remedies, with_advice

if TYPE_CHECKING:
    import libcst as cst
    import torch

    from vqdoctor.source import Patch, Place, Proposal

MOST_PROPOSALS = 12
"""Ways to write one step that are examined, at a few seconds each."""
SAME = 1e-4
"""Relative difference of the task loss up to which a model computes the same values: float32's rounding."""
NO_PLACE = "no place for it was found in this file"
NO_PATCH = "this tool writes no patch for it; the plan shows its lines"
IN_TRAINING = "no place for it was found in this file; fix --retrain does it to the weights"


def patch_source(
    path: str | os.PathLike[str],
    source: Path,
    *,
    data: object = None,
    user_model: UserModel | None = None,
    settings: Settings | None = None,
    progress: Progress | None = None,
) -> Report:
    """Write the plan's changes of the code into a copy of the user's file, prove each, and return the report.

    A step is proven where the patched file, examined in a process of its own with the same checkpoint and
    data, no longer has the finding; or, where the checkpoint's tensors hold the finding, where a model
    that the patched file trains from scratch does not have it, and one of the unpatched file does. Only
    proven changes are in the patch.

    Args:
        path: the checkpoint.
        source: the Python file that defines the model, or its training step.
        data: as for `examine`.
        user_model: the model or the task; it must come from files, as a fresh process imports it.
        settings: the user's settings; `write_source` writes the file.
        progress: gets each step in a few words.

    Raises:
        UserError: if something cannot be read or written, or the user's code fails.
    """
    try:
        from vqdoctor.source import diff, parse
    except ImportError as error:
        if error.name is None or error.name.partition(".")[0] != "libcst":
            raise
        raise MissingPackageError("libcst", "patching your source", "source") from None
    settings, user_model = settings or Settings(), user_model or UserModel()
    say = progress or (lambda _: None)
    before = parse(source)
    text_before = before.bytes
    if not user_model.runs:
        hint = "add --task FILE.py:NAME, or --model and --data"
        raise UserError("--source needs the model that the file defines", hint)
    if settings.write_source:
        require_committed(source)
    with Session.open(path, data=data, user_model=user_model, settings=settings, progress=say) as session:
        report = examine_session(session).report
        found = _Layers.of(session)
    prover = Prover(source=source, path=path, data=data, user_model=user_model, settings=settings)
    patched, steps, now = before, [], report
    for step in _asked(report.plan, settings):
        say(f"patching {source.name}: {step.remedy}")
        work = _Work(step=step, report=now, found=found, source=source, prover=prover)
        told, patched, now = work.done(patched)
        if told is not None:
            steps.append(told)
    text = diff(before, patched, source.name)
    written = bool(text) and settings.write_source
    if written:
        write_over(source, text_before, patched.bytes)
    patch = SourcePatch(path=str(source), diff=text, written=written, steps=tuple(steps))
    return replace(report, source=patch)


def _asked(plan: Sequence[PlanStep], settings: Settings) -> list[PlanStep]:
    """Return the steps that --only and --skip leave."""
    require_remedies((*settings.only, *settings.skip))
    chosen = [step for step in plan if not settings.only or step.remedy in settings.only]
    return [step for step in chosen if step.remedy not in settings.skip]


@dataclass(frozen=True, kw_only=True, eq=False)
class _Layers:
    """The model, and the VQ layers that have a place in a file."""

    model: torch.nn.Module
    views: Sequence[QuantizerView]
    names: dict[str, str]

    @classmethod
    def of(cls, session: Session) -> _Layers:
        model = session.model
        ours = {raw: name for name, raw in model.raw_keys.items()}
        return cls(model=model.model, views=model.views, names=ours)

    def place(self, module: cst.Module, layer: str | None, report: Report, remedy: str) -> Place:
        """Return the place of a layer, without a name that of the first, in a parsed file."""
        from vqdoctor.source import place_in

        view = next((v for v in self.views if layer in (None, v.name)), None)
        if view is None:
            return place_in(module, (), {})
        keys = {role: self.names.get(key, key) for role, key in view.keys.items()}
        summary = next((s for s in report.layers if s.name == view.name), None)
        advice = next((known for known in with_advice(all_checks()) if known.name == remedy), None)
        return place_in(
            module,
            self._classes(keys["codebook"]),
            keys,
            transposed=view.place.transposed,
            in_model=summary.attributes if summary else {},
            constructor=setting_of(advice, summary) if summary and advice else None,
        )

    def _classes(self, key: str) -> list[tuple[str, str]]:
        """Return path and class of the modules that a tensor lies in, the innermost first."""
        found = []
        path = key
        while path:
            path = path.rpartition(".")[0]
            found.append((path, type(self.model.get_submodule(path)).__name__))
        return found


@dataclass(frozen=True, kw_only=True, eq=False)
class _Work:
    """One step of the plan, on the file as the steps before left it."""

    step: PlanStep
    report: Report
    found: _Layers
    source: Path
    prover: Prover

    def done(self, module: cst.Module) -> tuple[SourceStep | None, cst.Module, Report]:
        """Return the told step, the file after it, and the report of that file.

        The step is None where no cause asks for it, or an earlier one has removed them.
        """
        from vqdoctor.source import diff, has_patch, proposals

        step = self.step
        wanted = {(f.code, f.layer) for f in self.report.findings if f.code in step.codes}
        if not wanted:
            return None, module, self.report
        layer = next((layer for _, layer in sorted(wanted, key=str) if layer is not None), None)
        acts = any(remedy.name == step.remedy and remedy.plan for remedy in all_remedies())
        if not has_patch(step.remedy):
            return self._told("not-placed", reason=IN_TRAINING if acts else NO_PATCH), module, self.report
        place = self.found.place(module, layer, self.report, step.remedy)
        first, why, tried = None, "", 0
        for patch, proposal in islice(proposals(place, step.remedy), MOST_PROPOSALS):
            tried += 1
            proof = self.prover.prove(proposal.module.bytes, step.codes)
            refused = _refused(proof, self.report, patch)
            if not refused:
                told = self._told("proven", proposal, reason=proof.how, tried=tried)
                return told, proposal.module, proof.report or self.report
            if first is None:
                first, why = proposal, refused
        if first is None:
            return self._told("not-placed", reason=IN_TRAINING if acts else NO_PLACE), module, self.report
        shown = diff(module, first.module, self.source.name)
        return self._told("unproven", first, reason=why, tried=tried, diff=shown), module, self.report

    def _told(self, status: str, proposal: Proposal | None = None, **more: object) -> SourceStep:
        what = proposal.what if proposal else ""
        step = self.step
        return SourceStep(remedy=step.remedy, codes=step.codes, status=status, what=what, **more)  # type: ignore[arg-type]


def _refused(proof: Proof, before: Report, patch: Patch) -> str:
    """Return why a proof does not hold; "" where it does."""
    if proof.failed:
        return proof.failed
    report = proof.report
    assert report is not None
    loss, was = (r.find(TaskMetrics) for r in (report, before))
    if patch.keeps_values and loss is not None and was is not None and not _same(loss.loss, was.loss):
        return f"the task loss of the same weights becomes {loss.loss:.4g}, from {was.loss:.4g}"
    errors = {f.code for f in report.roots() if f.severity >= Severity.ERROR}
    known = {f.code for f in before.findings}
    crashed = [o.code for o in report.outcomes if o.status == "crashed"]
    if crashed:
        return f"{crashed[0]} cannot be judged any more"
    if proof.left:
        return f"{', '.join(sorted(proof.left))} stays"
    return f"{', '.join(sorted(errors - known))} comes up" if errors - known and patch.keeps_values else ""


def _same(a: float | None, b: float | None) -> bool:
    return a is None or b is None or abs(a - b) <= SAME * max(abs(a), abs(b))
