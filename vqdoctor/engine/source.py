"""The plan in the user's source: each change is proposed, and proven by examining the patched file."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
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
from vqdoctor.engine.repair import require_remedies
from vqdoctor.engine.session import Progress
from vqdoctor.engine.source_file import name_in_patch, require_committed, write_over
from vqdoctor.engine.source_layers import SourceLayer
from vqdoctor.engine.source_proof import Examined, Proof, Prover
from vqdoctor.engine.weights import weights_of
from vqdoctor.engine.wording import setting_of
from vqdoctor.remedies import all_remedies, with_advice

if TYPE_CHECKING:
    import libcst as cst

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
    prover = Prover(
        source=source, text=text_before, path=path, data=data, user_model=user_model, settings=settings
    )
    say("examining the checkpoint")
    first = prover.first()
    report, steps = first.report, []
    state = _State(module=before, report=report, layers=first.layers)
    for step in _asked(report.plan, settings):
        say(f"patching {source.name}: {step.remedy}")
        work = _Work(step=step, source=source, prover=prover, elsewhere=_elsewhere(first, source))
        while (done := work.done(state)) is not None:
            told, state = done
            if told.status == "proven" or told not in steps:  # of several layers, often the same
                steps.append(told)
    patched = state.module
    text = diff(before, patched, name_in_patch(source))
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
class _State:
    """The file after some steps, the report of it, and the layers that it computes."""

    module: cst.Module
    report: Report
    layers: Sequence[SourceLayer]

    def codebook(self, layer: str | None) -> str:
        """Return the name of a layer's codebook in the model; a patch may give the layer another name."""
        return next((found.keys.get("codebook", "") for found in self.layers if found.name == layer), "")

    def output(self, codebook: str) -> str:
        """Return the kind of output of the layer of a codebook."""
        return next((found.output for found in self.layers if found.keys.get("codebook") == codebook), "")


@dataclass(kw_only=True, eq=False)
class _Work:
    """One step of the plan, on the file as the steps before left it; each layer's class in its turn."""

    step: PlanStep
    source: Path
    prover: Prover
    elsewhere: str
    _tried: set[str | None] = field(default_factory=set)

    def done(self, state: _State) -> tuple[SourceStep, _State] | None:
        """Return the step of the next layer, and the state after it.

        None where no cause asks for the step any more: an earlier one has removed it, or each was tried.
        """
        from vqdoctor.source import diff, has_patch, proposals

        found = {(f.code, f.layer) for f in state.report.findings if f.code in self.step.codes}
        layers = sorted(
            {layer for _, layer in found} - self._tried, key=lambda name: (name is None, str(name))
        )
        if not layers:
            return None
        layer = layers[0]
        self._tried.add(layer)
        acts = any(remedy.name == self.step.remedy and remedy.plan for remedy in all_remedies())
        if not has_patch(self.step.remedy):
            self._tried.update(layers)
            return self._told("not-placed", reason=IN_TRAINING if acts else NO_PATCH), state
        wanted = sorted((code, at) for code, at in found if at == layer)
        place = self._place(state, layer)
        first, why, tried = None, "", 0
        for patch, proposal in islice(proposals(place, self.step.remedy), MOST_PROPOSALS):
            tried += 1
            proof = self.prover.prove(proposal.module.bytes, wanted, state.codebook(layer))
            after = _State(module=proposal.module, report=proof.report or state.report, layers=proof.layers)
            refused = proof.failed or _refused(proof, state, after, patch, state.codebook(layer))
            if not refused:
                return self._told("proven", proposal, reason=proof.how, tried=tried), after
            if first is None:
                first, why = proposal, refused
        if first is None:
            reason = (self.elsewhere and f"{NO_PLACE}: {self.elsewhere}") or (
                IN_TRAINING if acts else NO_PLACE
            )
            return self._told("not-placed", reason=reason), state
        shown = diff(state.module, first.module, name_in_patch(self.source))
        return self._told("unproven", first, reason=why, tried=tried, diff=shown), state

    def _place(self, state: _State, layer: str | None) -> Place:
        """Return the place of a layer, without a name that of the first."""
        from vqdoctor.source import place_in

        found = next((known for known in state.layers if layer in (None, known.name)), None)
        if found is None:
            return place_in(state.module, (), {})
        file = os.path.realpath(self.source)
        summary = next((s for s in state.report.layers if s.name == found.name), None)
        advice = next((known for known in with_advice(all_checks()) if known.name == self.step.remedy), None)
        return place_in(
            state.module,
            [written for written in found.classes if written.file == file],
            found.keys,
            transposed=found.transposed,
            in_model=summary.attributes if summary else {},
            constructor=setting_of(advice, summary, weights_of(state.report)) if summary and advice else None,
        )

    def _told(self, status: str, proposal: Proposal | None = None, **more: object) -> SourceStep:
        what = proposal.what if proposal else ""
        step = self.step
        return SourceStep(remedy=step.remedy, codes=step.codes, status=status, what=what, **more)  # type: ignore[arg-type]


def _elsewhere(first: Examined, source: Path) -> str:
    """Return where the layer's class is, where it is not in the file; "" where it is, or is unknown."""
    file = os.path.realpath(source)
    own = [written for layer in first.layers[:1] for written in layer.classes if written.file]
    theirs = next((w for w in own if f"{os.sep}torch{os.sep}nn{os.sep}" not in w.file), None)
    unused = "" if first.imported else f"the model never imports {source.name}"
    if theirs is None or theirs.file == file:
        return unused
    place = os.path.relpath(theirs.file)
    where = f"the layer's class {theirs.name} is in {place}; try --source {place}"
    return f"{unused}; {where}" if unused else where


def _refused(proof: Proof, before: _State, after: _State, patch: Patch, codebook: str) -> str:
    """Return why a proof does not hold; "" where it does."""
    report, keeps = after.report, patch.keeps_values
    was_input = patch.gives_codes and before.output(codebook) == "z_e"
    if patch.gives_codes and after.output(codebook) == "z_e":
        return "the layer still hands on its input z_e, and not its codes"
    if was_input and after.output(codebook) != "codes":
        return "the layer does not hand on its codes"
    loss, was = (r.find(TaskMetrics) for r in (report, before.report))
    if keeps and not was_input and loss is not None and was is not None and not _same(loss.loss, was.loss):
        return f"the task loss of the same weights becomes {loss.loss:.4g}, from {was.loss:.4g}"
    errors = {f.code for f in report.roots() if f.severity >= Severity.ERROR}
    known = {f.code for f in before.report.findings}
    crashed = [o.code for o in report.outcomes if o.status == "crashed"]
    if crashed:
        return f"{crashed[0]} cannot be judged any more"
    if proof.left:
        return f"{', '.join(sorted(proof.left))} stays"
    return f"{', '.join(sorted(errors - known))} comes up" if errors - known and keeps else ""


def _same(a: float | None, b: float | None) -> bool:
    return a is None or b is None or abs(a - b) <= SAME * max(abs(a), abs(b))
