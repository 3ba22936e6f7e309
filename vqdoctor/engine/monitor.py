"""`vqdoctor.Monitor`: beside a user's own training loop, a warning with the cause when a collapse begins."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import math
import os
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Literal, Self, TypedDict

import torch
from torch import nn

import vqdoctor
from vqdoctor.capture.layer import CapturedLayer
from vqdoctor.capture.live import LayerStep, Replay, StepWatch, around, find_live, locate_live
from vqdoctor.core.errors import UserError
from vqdoctor.core.evidence import Evidence
from vqdoctor.core.levels import Severity
from vqdoctor.core.report import Report
from vqdoctor.core.settings import Settings, UserModel
from vqdoctor.core.trace import SCHEMA, End, Event, Start, TracedLayer
from vqdoctor.engine.examine import examine
from vqdoctor.engine.gather import Gathered
from vqdoctor.engine.symptoms import AT_THE_END, MEANWHILE, OF_LOSSES, Symptoms
from vqdoctor.engine.watchers import Watchers
from vqdoctor.engine.writers import Scalars, Writer, bins_of, writer_of
from vqdoctor.layouts import Found
from vqdoctor.layouts.stacks import stacks
from vqdoctor.models.process_group import as_single_process
from vqdoctor.models.untouched import same_randomness, unwrapped
from vqdoctor.probes.live import LayerMemory, measure
from vqdoctor.probes.model import ModelContext, gradient_path
from vqdoctor.render import event_line
from vqdoctor.saved.trace import TraceWriter
from vqdoctor.training.revival import Revival

if TYPE_CHECKING:
    from vqdoctor.models.task import Task

ENOUGH = 3
"""Vectors per code that the usage of an interval shall rest on: of several steps, where one has fewer."""
MOST_STEPS = 16
"""Steps of an interval that are looked at, at most."""
THRESHOLD = 0.1
"""Codes under this multiple of 1/K of the usage are revived, where that is asked for."""
_WRITTEN: set[Path] = set()
"""The traces of the monitors that have not ended."""
Reaction = Literal["warn", "stop"] | Callable[[Event], object]


class MonitorOptions(TypedDict, total=False):
    """The options of a monitor that a trainer's callback passes on; see `Monitor`."""

    every: int
    out: str | os.PathLike[str] | None
    on_collapse: Reaction
    revive: bool
    seed: int


class CollapseWarning(UserWarning):
    """A finding of the monitor on the running training."""


class Stopped(Exception):
    """The monitor stops the training, as `on_collapse="stop"` asks; its `with` block then ends quietly.

    Attributes:
        event: the finding.
    """

    def __init__(self, event: Event) -> None:
        self.event = event
        super().__init__(event.message)


class Monitor:
    """Watches the VQ layers of a model while the user's own loop trains it.

        with vqdoctor.Monitor(model) as monitor:
            for x, y in loader:
                ...
                optimizer.step()
                monitor.step(task_loss=loss, vq_loss=vq)

    The weights are bit-equal to those of the same training without it. In most steps it does nothing: it
    looks at the last steps of each interval. Where every rank of a distributed training has its monitor, the
    usage is that of all ranks together; rank zero alone writes and reports.

    Attributes:
        steps: optimizer steps done.
        events: the findings so far.
    """

    def __init__(
        self,
        model: nn.Module,
        task: Task | None = None,
        *,
        every: int = 100,
        out: str | os.PathLike[str] | None = "run.vqtrace.jsonl",
        on_collapse: Reaction = "warn",
        revive: bool = False,
        optimizer: torch.optim.Optimizer | None = None,
        start: int = 0,
        seed: int = 0,
        log: Scalars | None = None,
        writer: object = None,
    ) -> None:
        """Prepare to watch a model; the layers are looked for in the first step.

        Args:
            model: the module that the loop calls.
            task: its data and its losses. Causes that these alone show, such as the weight of the VQ loss,
                are named with it.
            every: steps of an interval.
            out: the file of the trace; None writes none.
            on_collapse: "warn", "stop" (at an error), or a function that gets each `Event`.
            revive: whether dead codes are moved to recent z_e; this changes the training, on all ranks alike.
            optimizer: the model's, for its memory of gradients and its number of steps; `revive` needs it.
            start: steps done before, of a training that is resumed: later lines of the trace become void.
            seed: of all that the monitor draws; the training's own random states stay as they are.
            log: gets the figures of an interval by name, and the step, as `wandb.log` and
                `mlflow.log_metrics` do.
            writer: a SummaryWriter of TensorBoard, an accelerate.Accelerator with trackers, or the module or
                the run of wandb, mlflow or trackio: it gets them too, and TensorBoard the usage of the codes.

        Raises:
            UserError: if an argument is wrong.
        """
        if not isinstance(model, nn.Module):
            raise UserError(f"a {type(model).__name__} is not a model", "give a torch.nn.Module")
        if every < 1:
            raise UserError(f"every={every}: not a number of steps", "write a whole number, 1 or more")
        if not callable(on_collapse) and on_collapse not in ("warn", "stop"):
            raise UserError(f"on_collapse={on_collapse!r}: is none of warn, stop and a function")
        if revive and optimizer is None:
            raise UserError("revive=True needs the optimizer, whose moments it clears", "optimizer=…")
        self.steps = start
        self.events: list[Event] = []
        self._model, self._task, self._optimizer = unwrapped(model), task, optimizer
        self._every, self._seed, self._react, self._revives = every, seed, on_collapse, revive
        self._writers = [Writer(scalars=log)] if log is not None else []
        self._writers += [writer_of(writer)] if writer is not None else []
        self._out = None if out is None else Path(out)
        self._replay = Replay(own=self._model)
        self._writer: TraceWriter | None = None
        self._watch: StepWatch | None = None
        self._found = Found(views=())
        self._layers: tuple[CapturedLayer, ...] = ()
        self._above: Mapping[str, str] = {}
        self._burst = 0
        self._quiet = (0, 0)  # between these steps none is looked at
        self._memory: dict[str, LayerMemory] = {}
        self._revivals: dict[str, Revival] = {}
        self._symptoms = Symptoms(layers=(), examine=self._examine)
        self._watchers = Watchers()

    @property
    def report(self) -> Report | None:
        """The newest whole examination, of a model with a symptom; None where there was none."""
        return self._symptoms.report

    def state_dict(self) -> dict[str, list[str]]:
        """Return the findings that were reported, for a resumed training."""
        return {"told": sorted(self._symptoms.told)}

    def load_state_dict(self, state: Mapping[str, list[str]]) -> None:
        """Take up the state of the training before: its findings are not reported again."""
        self._symptoms.told |= set(state["told"])

    def __enter__(self) -> Self:
        """Start watching."""
        self.begin()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        """Stop watching; a stop of the monitor's own ends here."""
        self.end()
        return isinstance(error, Stopped) and error.event in self.events

    def begin(self) -> None:
        """Start watching: the layers are found in the next step, or in the next but one after `end`."""
        shapes = [(name, *tensor.shape) for name, tensor in self._model.state_dict().items()]
        model = hashlib.sha256(repr(shapes).encode()).hexdigest()[:16]
        self._watchers = Watchers.begin(self.steps, model)
        if not self._layers:
            self._found = find_live(self._model)
            self._replay.paths = around(self._model, self._found)
        self._watch = self._watch or StepWatch(self._replay, (), full=False)

    def end(self) -> None:
        """Stop watching, leave the model without hooks, and let those who follow the trace know."""
        with contextlib.suppress(RuntimeError):  # the store of a training that broke down
            self._watchers.settle()
        if self._watch is not None:
            self._watch.end()
            self._watch = None
        if self._writer is not None and self._out is not None:
            self._writer.add(End(step=self.steps))
            _WRITTEN.discard(self._out.resolve())

    def step(
        self,
        *,
        task_loss: torch.Tensor | float | None = None,
        vq_loss: torch.Tensor | float | None = None,
        step: int | None = None,
    ) -> None:
        """Tell that an optimizer step was done.

        Args:
            task_loss: the task loss of the step; it is read at the end of an interval only.
            vq_loss: its VQ loss, unweighted.
            step: how many steps are done, where the loop counts them itself.

        Raises:
            UserError: if a loss is not one number; in the first step, if the model was not called or has no
                VQ layer, or if codes are to be revived and other ranks have no monitor.
            Stopped: if `on_collapse` is "stop", at a finding that is an error; on all ranks that watch.
        """
        for name, loss in (("task_loss", task_loss), ("vq_loss", vq_loss)):
            if isinstance(loss, torch.Tensor) and loss.numel() != 1:
                shape = f"a tensor of shape {[*loss.shape]}"
                raise UserError(f"{name} is {shape}, and no single number", "give its mean or its sum")
        self.steps = self.steps + 1 if step is None else step
        if self._watch is None and self._quiet[0] < self.steps < self._quiet[1]:
            return
        watch, self._watch = self._watch, None
        seen = [] if watch is None else watch.end()
        self._watchers.settle()
        if self._watchers.idle:
            return
        if watch is not None and not self._layers:
            self._tell(self._find())
        elif watch is not None:
            needed = 1.0
            for layer in seen:
                self._memory[layer.layer.name].note(layer)
                if layer.chosen is not None and layer.chosen.numel():
                    vectors = layer.chosen.numel() * self._watchers.watching
                    needed = max(needed, ENOUGH * layer.layer.num_codes / vectors)
            self._burst = min(MOST_STEPS, self._every, math.ceil(needed))
            self._revive(watch)
            if self.steps % self._every == 0:
                losses = {"task_loss": _number(task_loss), "vq_loss": _number(vq_loss)}
                self._tell(self._interval(seen, losses))
        left = -self.steps % self._every or self._every
        self._quiet = (self.steps, self.steps + left - self._burst)
        if left <= self._burst:
            self._watch = StepWatch(self._replay, self._layers, full=left == 1)

    def _find(self) -> list[Event]:
        """Find the layers, start the trace, and return what the way of a gradient through them shows."""
        with as_single_process():
            context = locate_live(self._replay, self._found, ModelContext, self._seed)
        self._layers = tuple(context.on(self._model))
        self._replay.paths = (self._replay.called or "",)
        names = [layer.name for layer in self._layers]
        self._memory = {name: LayerMemory() for name in names}
        self._above = {
            lower.name: upper.name
            for stack in stacks([layer.view for layer in self._layers])
            for upper, lower in itertools.pairwise(stack)
        }
        self._burst = min(MOST_STEPS, self._every)
        if self._revives:
            if self._watchers.watching < self._watchers.world:
                what = "revive=True would move the codes of rank zero alone"
                raise UserError(what, "give the model of every rank a monitor, or none of them revive=True")
            self._seed = self._watchers.agreed(self._seed)
            self._revivals = {x.name: Revival(layer=x, threshold=THRESHOLD) for x in self._layers}
        if self._watchers.rank:
            return []
        self._symptoms.layers = names
        if self._out is not None:
            traced = tuple(
                TracedLayer(name=x.name, num_codes=x.num_codes, dim=x.view.dim) for x in self._layers
            )
            start = Start(
                step=self.steps - 1,
                schema=SCHEMA,
                version=vqdoctor.__version__,
                every=self._every,
                layers=traced,
            )
            if (path := self._out.resolve()) in _WRITTEN:
                said = f"another monitor, which has not ended, writes {self._out} too: give each its own out="
                warnings.warn(said, CollapseWarning, stacklevel=3)
            _WRITTEN.add(path)
            self._writer = TraceWriter(self._out, start)
            self._symptoms.told |= {event.fingerprint for event in self._writer.told}
        gathered = Gathered()
        with same_randomness(self._seed), as_single_process():
            gathered.run((gradient_path.PROBE,), context, "batch")
        return self._symptoms.look(self.steps, gathered.evidence)

    def _interval(self, seen: list[LayerStep], losses: Mapping[str, float | None]) -> list[Event]:
        """Write the lines of an interval, and return what it shows, on rank zero."""
        self._watchers.gather(self._memory)
        if self._watchers.rank:
            return []
        steps = {layer.layer.name: layer for layer in seen}
        measured = [
            measure(layer, self._memory[name], self.steps, losses, steps.get(self._above.get(name, "")))
            for name, layer in steps.items()
        ]
        if self._writer is not None:
            self._writer.add(*(one.interval for one in measured))
        for writer in self._writers:
            writer.scalars({k: v for x in measured for k, v in x.interval.scalars().items()}, self.steps)
            for one in measured:
                if writer.histogram is not None and one.histogram:
                    name = f"vq/{one.interval.layer}/usage"
                    writer.histogram(name, bins_of(one.histogram), self.steps)
        evidence: list[Evidence] = [item for one in measured for item in one.evidence]
        return self._symptoms.look(self.steps, evidence)

    def _tell(self, events: list[Event]) -> None:
        """Write the events down, and react to each; all ranks that watch stop together."""
        self.events += events
        if self._writer is not None and events:
            self._writer.add(*events)
        for event in events:
            if callable(self._react):
                self._react(event)
            else:
                warnings.warn(event_line(event), CollapseWarning, stacklevel=3)  # at the user's own line
        errors = [event for event in events if event.severity is Severity.ERROR]
        stop = self._watchers.agreed(errors[0] if errors and self._react == "stop" else None)
        if stop is not None:
            self.events += [] if stop in self.events else [stop]
            raise Stopped(stop)

    def _examine(self) -> Report | None:
        """Examine the model as it is now, on a copy; a failure is a warning, and the training goes on."""
        known = self._task is not None
        device = next((str(t.device) for t in self._model.state_dict().values()), "cpu")
        ignored = AT_THE_END if known else (*AT_THE_END, *OF_LOSSES)
        settings = Settings(ignore=ignored, limits=MEANWHILE, device=device)
        task = self._task if known else self._replay
        user_model = UserModel(task=task, model=self._model, optimizer=self._optimizer, steps=self.steps)
        try:
            with as_single_process():
                return examine(None, user_model=user_model, settings=settings)
        except Exception as error:  # whatever the user's code or a full memory raises
            said = f"vqdoctor could not examine the model: {type(error).__name__}: {error}"
            warnings.warn(said, CollapseWarning, stacklevel=5)
            return None

    def _revive(self, watch: StepWatch) -> None:
        """Move dead codes to recent z_e, where that is asked for: several ranks together, at an interval."""
        together = self._watchers.watching > 1
        if together and self.steps % self._every:
            return  # ranks with batches of another size may not look at this step
        for revival in self._revivals.values():
            assert self._optimizer is not None
            draw = torch.Generator().manual_seed(self._seed + self.steps)
            revival.after_step(watch.watched, self._optimizer, draw, self._watchers if together else None)


def _number(loss: torch.Tensor | float | None) -> float | None:
    """Return a loss as a number; None where it is unknown or not finite."""
    value = loss.detach().item() if isinstance(loss, torch.Tensor) else loss
    return value if value is not None and math.isfinite(value) else None
