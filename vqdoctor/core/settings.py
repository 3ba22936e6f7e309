"""The settings of a run, carried whole; each field declares itself to flags, pyproject.toml and Python."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from vqdoctor.core.assertion import GATE_OPTIONS, GateRules, gate_rules
from vqdoctor.core.errors import UserError
from vqdoctor.core.experiments import MOST_STEPS, STEPS
from vqdoctor.core.frozen import frozen
from vqdoctor.core.levels import Severity
from vqdoctor.core.option import (
    ABLATION,
    ARGUMENTS,
    CHECKS,
    CODES,
    EXAMINED,
    FIX,
    GATE,
    GROUPS,
    LIMITS,
    LOOKS,
    MODEL,
    OUTPUT,
    RETRAINING,
    RUNS,
    SHARD,
    SOURCE,
    SWITCH,
    WEIGHT,
    Limits,
    Option,
    choice,
    code,
    declared,
    number,
    option,
    path,
    paths,
    text,
    texts,
    whole,
)
from vqdoctor.core.retraining import Goals

_model, _examined, _checks = (partial(option, group=group) for group in (MODEL, EXAMINED, CHECKS))
_output = partial(option, group=OUTPUT, commands=RUNS)
_retraining = partial(option, group=RETRAINING, commands=("fix",))
_fix = partial(option, group=FIX, commands=("fix",), in_file=False)
_source = partial(option, group=SOURCE, commands=("fix",), in_file=False)
_both = partial(option, group=RETRAINING, commands=("fix", "ablate"))
_ablation = partial(option, group=ABLATION, commands=("ablate",), in_file=False)
_jobs = partial(option, group=OUTPUT, commands=("gate", "ablate"), in_file=False)
_gate = partial(option, group=GATE, commands=("gate",), in_file=False)


@frozen
class UserModel:
    """The user's own code for a live examination; a checkpoint never names any.

    Attributes:
        task: a Task, or where to import one: "pkg.module:name" or "file.py:name".
        model: a model, a function that builds one, where to import it, or "hf"; it needs a batch with x.
        model_args: arguments of that function.
        losses: losses(model, batch) of that model, for a batch of any kind.
        optimizer: the optimizer of a live model.
        steps: optimizer steps that a live model has done, where the optimizer is not known.
        vq_loss: the model's output that is the VQ loss; None is a guess.
        task_loss: "ce", "mse", or the model's output that is the task loss; None is a guess.
        trained_vq_weight: the weight that the training gave the VQ loss, where the task has none.
    """

    task: Any = _model(
        None, code("FILE.py:NAME|PKG:NAME"), "Your Task: model, data and losses in your own code."
    )
    model: Any = _model(
        None,
        code("FILE.py:NAME|PKG:NAME|hf"),
        "Builds your model, for --data with x; hf: transformers or diffusers.",
    )
    model_args: Mapping[str, Any] = _model(
        {},
        ARGUMENTS,
        "An argument of that function, such as dim=64; may be given several times.",
        flags=("--model-arg",),
    )
    losses: Any = None
    optimizer: Any = None
    steps: int | None = None
    vq_loss: str | None = _model(None, text("KEY"), "The model's output that is the VQ loss.")
    task_loss: str | None = _model(
        None,
        text("ce|mse|KEY"),
        "The task loss: cross-entropy against y, squared error, or an output of the model.",
    )
    trained_vq_weight: float | None = _model(
        None, number("W"), "The weight that the training gave the VQ loss, if the task has none."
    )

    @property
    def runs(self) -> bool:
        """Whether there is a model to run."""
        return self.task is not None or self.model is not None

    def __post_init__(self) -> None:
        """Refuse an option that would be ignored.

        Raises:
            UserError: if an option is given without the one that it belongs to.
        """
        if self.task is not None and isinstance(self.model, str):
            raise UserError("--task and --model: a task brings its own model", "leave one of them out")
        if self.losses is not None and (self.model is None or self.task is not None):
            raise UserError("losses= is for a model without a task", "give the model, and the batch")
        if self.model is not None and self.task is None and self.losses is None:
            return
        given = {"--model-arg": self.model_args, "--vq-loss": self.vq_loss, "--task-loss": self.task_loss}
        for name, value in given.items():
            if value:
                raise UserError(f"{name} needs --model", "a Task states its own losses")


@frozen
class Settings:
    """All that the user may set; the help of each field says what it does.

    Fields without a help: `balanced` is whether the VQ loss's weight follows the gradients, as the flag
    `--vq-weight auto` asks; `flags` are the options that flags set; `pyproject` is the file that set the
    options in `from_file`, to these values.
    """

    data: tuple[Path, ...] = _model(
        (),
        paths("BATCH"),
        "A batch (.npz .npy .pt .safetensors) with x (and y), or z_e and/or indices; gate takes several.",
        commands=LOOKS,
    )
    bare: bool = _examined(
        False,
        SWITCH,
        "Leave out the task, the model and the data that pyproject.toml names.",
        commands=LOOKS,
        in_file=False,
    )
    batches: int | None = _examined(
        None,
        whole(1, "number of batches"),
        "How many batches of each split to run.",
        shown="4 for gradients; for usage all, or 64 of a task",
    )
    decide: bool = _examined(
        False,
        SWITCH,
        "Train copies of the model a little, each with one cause taken away, to tell which of them it is.",
        in_file=False,
    )
    probe_steps: int = _examined(
        0,
        whole(0, "number of steps"),
        "The same, with N training steps a copy.",
        shown=f"{STEPS} with --decide, and at most {MOST_STEPS}",
    )
    trace: Path | None = _examined(
        None,
        path("FILE"),
        "The trace of its training, which vqdoctor.Monitor writes.",
        commands=("inspect", "gate", "examine"),
        in_file=False,
    )
    mask: str | None = _examined(
        None, text("KEY"), "The entry of a batch that is True where there is data, and not padding."
    )
    layer: str | None = _examined(None, text("NAME"), "Examine only the VQ layer of this name.")
    codebook_key: str | None = _examined(None, text("KEY"), "Take the tensor under this key as the codebook.")
    orientation: Literal["kd", "dk"] | None = _examined(
        None, choice("kd", "dk"), "How that codebook lies: [K, D] or [D, K].", name="layout"
    )
    verify: bool = _examined(False, SWITCH, "Read and check every byte of the checkpoint.")
    device: str = _examined("auto", choice("auto", "cpu", "cuda", "mps"), "Where a model is run.")
    seed: int = _examined(0, whole(0, "seed"), "Seed of all that is drawn.")
    select: tuple[str, ...] = _checks((), CODES, "Run only these checks: VQ101,VQ5 (beginnings allowed).")
    ignore: tuple[str, ...] = _checks((), CODES, "Leave out these checks, likewise.")
    limits: Limits = _checks(
        {}, LIMITS, "Change a limit; `vqdoctor explain CODE` lists them.", flags=("--limit",)
    )
    fail_on: str = _checks(
        "error", choice("error", "warning", "never"), "Exit 1 from which severity on.", commands=RUNS
    )
    checkpoint: Path | None = option(
        None, path("CKPT"), "The checkpoint of a fix that names none.", group=FIX, commands=()
    )
    output: Path | None = _fix(
        None, path("OUT"), "The file to write.", flags=("--output", "-o"), shown="CKPT.fixed.pt"
    )
    from_report: Path | None = _fix(
        None, path("REPORT.json"), "Fix the checkpoint of this report.", flags=("--from",)
    )
    dry_run: bool = _fix(
        False, SWITCH, "Show what would be done, and write nothing; with --retrain: the plan and its minutes."
    )
    unsafe: bool = _fix(
        False, SWITCH, "Also apply remedies that change trained weights.", name="unsafe-fixes"
    )
    only: tuple[str, ...] = _fix((), texts("REMEDY"), "Apply only this remedy; may be given several times.")
    skip: tuple[str, ...] = _fix((), texts("REMEDY"), "Leave out this remedy, likewise.")
    overwrite: bool = _fix(False, SWITCH, "Write the output even if it exists; never the input.")
    source: Path | None = _source(
        None, path("FILE.py"), "Your source: write the plan's changes of the code as a patch, and prove each."
    )
    diff: bool = _source(False, SWITCH, "Print the patch alone, for git apply.")
    write_source: bool = _source(
        False, SWITCH, "Write the proven changes into the file, which git must hold as it is.", name="write"
    )
    retrain: bool = _retraining(
        False, SWITCH, "Train on, with the remedies of the plan, until the model is cured.", in_file=False
    )
    epochs: int | None = _both(
        None, whole(1, "number of epochs"), "Epochs at most.", shown="50, or the number that a remedy needs"
    )
    steps: int | None = _retraining(
        None,
        whole(1, "number of steps"),
        "Optimizer steps at most, where an epoch is too long a measure.",
        in_file=False,
    )
    minutes: float | None = _retraining(
        None,
        number("M"),
        "Minutes at most, with the examinations and the model without VQ; likewise.",
        in_file=False,
    )
    vq_weight: float | None = _both(
        None, WEIGHT, "The weight of the VQ loss, or auto: balanced by its gradients.", shown="0.1"
    )
    balanced: bool = False
    warm_up_epochs: int = _both(
        10, whole(0, "number of epochs"), "Epochs of the weight's warm-up.", name="warmup"
    )
    trial: bool = _retraining(False, SWITCH, "First try the remedies against each other.", in_file=False)
    resume: bool = _retraining(False, SWITCH, "Go on with an unfinished run.", in_file=False)
    keep_worse: bool = _retraining(
        False, SWITCH, "Write the model even if it does its task worse than CKPT.", in_file=False
    )
    seeds: int = _ablation(3, whole(1, "number of seeds"), "Trainings of each cell, from --seed on.")
    codes: int | None = _ablation(
        None, whole(2, "number of codes"), "Codes of the built-in model.", shown="256"
    )
    stages: bool = _ablation(False, SWITCH, "The built-in chain with VQ, HDP and HSMM on and off.")
    jobs: int = _jobs(1, whole(1, "number of processes"), "Processes, for trainings or checkpoints.")
    out: Path = _ablation(
        Path("ablation"), path("DIR"), "Folder to write to; a study that is there is taken up."
    )
    shard: tuple[int, int] | None = _ablation(
        None, SHARD, "Only every N-th training, from the I-th on; `vqdoctor ablate merge DIR…` joins them."
    )
    goals: Goals = field(default_factory=Goals)
    gate: GateRules = field(default_factory=GateRules)
    baseline: Path | None = _gate(
        None, path("REPORT.json"), "Compare perplexity, usage and accuracy with this report's."
    )
    hide_known: Path | None = _gate(
        None, path("REPORT.json"), "Silence findings and failures that this report has too."
    )
    format: str = _output(
        "rich", text("FORMAT"), "Format of standard output: {formats}.", flags=("--format", "-f")
    )
    save: tuple[str, ...] = _output(
        (), texts("FORMAT=FILE"), "Also save the report; may be given several times.", in_file=False
    )
    plots: Path | None = _output(
        None, path("DIR"), "Also write the pictures into this folder, as SVG and PNG.",
        commands=(*RUNS, "compare"), in_file=False,
    )  # fmt: skip
    verbose: bool = _output(
        False,
        SWITCH,
        "List every check that could not judge, and why.",
        flags=("--verbose", "-v"),
        in_file=False,
    )
    histogram: bool = option(False, SWITCH, "Put the usage of every code into the report.", group=OUTPUT)
    flags: frozenset[str] = field(default=frozenset(), compare=False)
    pyproject: Path | None = field(default=None, compare=False)
    from_file: Mapping[str, Any] = field(default_factory=dict, compare=False)

    @property
    def training_steps(self) -> int:
        """The training steps on a copy that the user asks for; 0 is none."""
        return self.probe_steps or (STEPS if self.decide else 0)

    @property
    def bar(self) -> Severity | None:
        """The severity from which a finding fails the run; None if none does."""
        return None if self.fail_on == "never" else Severity.parse(self.fail_on)

    @property
    def inputs(self) -> tuple[Path, ...]:
        """The files that a run reads beside its checkpoint."""
        reports = (self.from_report, self.baseline, self.hide_known, self.trace)
        return (*self.data, *(report for report in reports if report))

    @property
    def batch(self) -> Path | None:
        """The batch, where a command takes one.

        Raises:
            UserError: if there are several.
        """
        if len(self.data) > 1:
            raise UserError("--data: one batch is examined at a time", "gate takes several")
        return self.data[0] if self.data else None

    @property
    def named_in_file(self) -> str:
        """The code and the data that pyproject.toml names, for the report; empty where it names none."""
        named = {name: self.from_file[name] for name in ("task", "model", "data") if name in self.from_file}
        if "data" in named:
            named["data"] = ", ".join(map(str, named["data"]))
        parts = [f"{name} {value}" for name, value in named.items()]
        return f"{' and '.join(parts)}, named by {self.pyproject}" if parts else ""

    @property
    def decided_in_file(self) -> str:
        """The other settings of pyproject.toml that decide about a report; empty where it has none."""
        names = [name for name in self.from_file if name not in ("task", "model", "data")]
        if not names:
            return ""
        word = "setting" if len(names) == 1 else "settings"
        return f"the {word} {', '.join(sorted(names))} of {self.pyproject} decided"

    def without_model(self, user_model: UserModel) -> tuple[Settings, UserModel]:
        """Return these settings and a user model without the code and the data that pyproject.toml names."""
        named = [OPTIONS[name] for name in MODEL_NAMES if name in self.from_file]
        settings = replace(
            self,
            data=() if "data" in self.from_file else self.data,
            from_file={name: value for name, value in self.from_file.items() if name not in MODEL_NAMES},
        )
        defaults = {told.field: getattr(UserModel(), told.field) for told in named if told.home is UserModel}
        return settings, replace(user_model, **defaults)

    @contextlib.contextmanager
    def blaming_the_file(self) -> Iterator[None]:
        """Add to the help of an error which of its words are in pyproject.toml."""
        try:
            yield
        except UserError as error:
            at_fault = [name for name, value in self.from_file.items() if _is_about(error.what, name, value)]
            if at_fault and str(self.pyproject) not in error.what:
                where = f"tool.vqdoctor.{at_fault[0]} is set in {self.pyproject}"
                error.hint = f"{error.hint}; {where}" if error.hint else where
            raise


OPTIONS: Mapping[str, Option] = {
    told.name: told
    for told in (*GATE_OPTIONS, *declared(Settings), *declared(UserModel), *declared(Goals, "goals"))
}
"""Every option under its name; those of a table of pyproject.toml as "table.name"."""

OF_MODEL = ("model-args", "vq-loss", "task-loss")
MODEL_NAMES = ("task", "model", *OF_MODEL, "trained-vq-weight", "data")


def options(command: str) -> Sequence[Option]:
    """Return the options of a command in the order of its help."""
    found = [told for told in OPTIONS.values() if command in told.commands]
    return sorted(found, key=lambda told: GROUPS.index(told.group))


def fill(values: Mapping[str, Any], objects: Mapping[str, Any] | None = None) -> tuple[Settings, UserModel]:
    """Return the settings and the user model that checked values by the name of their option make.

    `objects` are fields of the user model that Python alone can give.
    """
    homes: dict[type, dict[str, Any]] = {home: {} for home in (UserModel, Settings, Goals, GateRules)}
    homes[UserModel] |= objects or {}
    for name, value in values.items():
        homes[OPTIONS[name].home][OPTIONS[name].field] = value
    mine = homes[Settings]
    if mine.get("vq_weight") == "auto":
        mine.update(vq_weight=None, balanced=True)
    rules = gate_rules(homes[GateRules])
    return Settings(**mine, goals=Goals(**homes[Goals]), gate=rules), UserModel(**homes[UserModel])


def _is_about(message: str, name: str, value: object) -> bool:
    """Whether a message names an option, or a word that its value holds."""
    words = list(value) if isinstance(value, tuple | Mapping) else [value]
    texts = [os.fspath(w) if isinstance(w, Path) else w for w in words if isinstance(w, str | Path)]
    texts += [module for text in texts if (module := text.rpartition(":")[0])]
    flag = OPTIONS[name].flags[0]
    return any(re.search(rf"(?<![\w-]){re.escape(t)}(?![\w-])", message) for t in (flag, *texts))
