"""The optimizer of a retraining: the task's own, else one as the file saved it, else Adam."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from vqdoctor.core.errors import UserError
from vqdoctor.layouts import QuantizerView
from vqdoctor.models.task import LEARNING_RATE, Task
from vqdoctor.saved.optimizer import SavedOptimizer, number_of
from vqdoctor.saved.placement import Unplaced, placed_slots
from vqdoctor.saved.training import SavedTraining

HIGHEST_RATES = {"SGD": 1.0, "RMSprop": 0.1, "Adagrad": 0.1}
HIGHEST_RATE = 0.01
"""Of another kind, as Adam. Each is ten times what is usual: torch's default, and for SGD the 0.1 of
torchvision's recipes. A rate above it is more likely the damage than the way out: three models of other
people, saved at Adam rates of 0.2, 0.3 and 0.5, had all collapsed; at 0.001 and 0.002 their like had not."""
HOOKED = "the optimizer has hooks, which may know its groups, so that the codebook keeps its weight decay"
_SETTINGS = (
    "betas", "eps", "weight_decay", "amsgrad", "momentum", "dampening", "nesterov", "alpha", "centered",
    "momentum_decay", "lr_decay", "initial_accumulator_value",
)  # fmt: skip
"""The settings of a parameter group beside its rate, without the ways to compute a step (fused, foreach)."""


@dataclass(frozen=True, kw_only=True, eq=False)
class SavedRecipe:
    """An optimizer as a file describes it.

    Attributes:
        kind: torch's class.
        groups: names of a group's parameters, and its settings; the names are None for all that there are.
        notes: what was not taken as it is, one line each.
    """

    kind: type[torch.optim.Optimizer]
    groups: tuple[tuple[tuple[str, ...] | None, Mapping[str, Any]], ...]
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, saved: SavedTraining, views: Sequence[QuantizerView]) -> SavedRecipe | None:
        """Return the optimizer of a file's model; None where the file holds none of a known kind.

        Args:
            saved: the training as the file remembers it.
            views: all layers of the file.
        """
        try:
            placed = placed_slots(saved, views[0], views) if views else []
        except Unplaced:
            placed = []
        own = {id(p.slot): p for p in placed}
        for optimizer in saved.optimizers:
            mine = [own[id(slot)] for slot in optimizer.slots if id(slot) in own]
            kind = _kind(optimizer.groups[0]) if optimizer.groups and (mine or not placed) else None
            if kind is None:
                continue
            settings, notes = _settings(optimizer, kind)
            if len(mine) == len(optimizer.slots) and all(p.first.name == p.last.name for p in mine):
                names = [tuple(p.first.name for p in mine if p.slot.group == n) for n in range(len(settings))]
                return cls(kind=kind, groups=tuple(zip(names, settings, strict=True)), notes=notes)
            if len(settings) > 1:
                notes = (
                    *notes,
                    "its parameter groups cannot be told apart: the first one's settings",
                )
            return cls(kind=kind, groups=((None, settings[0]),), notes=notes)
        return None

    def build(self, model: torch.nn.Module) -> torch.optim.Optimizer:
        """Return a new optimizer of a model's parameters."""
        named = {name: p for name, p in model.named_parameters() if p.requires_grad}
        groups = []
        for names, settings in self.groups:
            listed = list(named.values()) if names is None else [named[n] for n in names if n in named]
            if listed:
                groups.append({"params": listed, **settings})
        groups = groups or [{"params": list(named.values()), **self.groups[0][1]}]
        return self.kind(groups)  # type: ignore[call-arg]


@dataclass(kw_only=True, eq=False)
class Optimizers:
    """The optimizers of one training.

    Attributes:
        main: the model's.
        further: those of further losses, as of a discriminator.
        told: what they are, in words.
        rates: the learning rates of each one's groups, which a schedule multiplies.
        taken: steps of the main one that were taken.
    """

    main: torch.optim.Optimizer
    further: tuple[torch.optim.Optimizer, ...] = ()
    told: str = ""
    rates: list[list[float]] = field(init=False)
    taken: int = 0

    def __post_init__(self) -> None:
        """Note the learning rates."""
        self._note_rates()

    def _note_rates(self) -> None:
        self.rates = [[float(group["lr"]) for group in one.param_groups] for one in self.all]

    @property
    def all(self) -> tuple[torch.optim.Optimizer, ...]:
        """Every one of them."""
        return (self.main, *self.further)

    def exempt(self, parameters: Iterable[torch.Tensor]) -> bool:
        """Take weight decay off some parameters: they get groups of their own, at the rates they have.

        Returns:
            False where an optimizer is hooked, as by a schedule that knows its groups: all stays as it is.
        """
        some = {id(parameter) for parameter in parameters}
        if any(one._optimizer_step_pre_hooks or one._optimizer_step_post_hooks for one in self.all):
            return False
        for one in self.all:
            for group in [group for group in one.param_groups if group.get("weight_decay")]:
                theirs = [id(p) in some for p in group["params"]]
                if all(theirs):
                    group["weight_decay"] = 0.0
                elif any(theirs):
                    one.add_param_group({**_split(group, theirs), "weight_decay": 0.0})
        self._note_rates()
        return True

    def lower_rates(self) -> None:
        """Take rates above the usual ones of their kind of optimizer down to these, and say so."""
        for one in self.all:
            usual = HIGHEST_RATES.get(type(one).__name__, HIGHEST_RATE) / 10
            high = [group for group in one.param_groups if group["lr"] > usual]
            for group in high:
                self.told += f"; learning rate {usual:g} in place of {float(group['lr']):g}"
                group["lr"] = usual
        self._note_rates()

    def set_rates(self, share: float) -> None:
        """Set the learning rates to a share of their full value."""
        for one, rates in zip(self.all, self.rates, strict=True):
            for group, rate in zip(one.param_groups, rates, strict=True):
                group["lr"] = rate * share

    def step(
        self,
        loss: torch.Tensor,
        further: Sequence[torch.Tensor],
        held: Iterable[torch.nn.Parameter],
        complete: Callable[[Iterable[torch.nn.Parameter]], object] = lambda _: None,
        *,
        clip_norm: float = 0.0,
    ) -> None:
        """Take one step of each: the main one on the loss, the others on theirs.

        Args:
            loss: the whole loss of the model.
            further: the losses of the further optimizers.
            held: parameters that are not trained in this step.
            complete: adds what other processes know of the gradients of the parameters.
            clip_norm: largest norm of the main one's gradients, whose step is left out where they are not
                finite; 0 takes every step as it is.

        Raises:
            UserError: if there are not as many losses as optimizers, they share a graph with the first, or an
                optimizer fails at its step.
        """
        if len(further) != len(self.further):
            raise UserError(
                f"task.optimizer(model) returns {len(self.all)} optimizers, and Losses.further holds "
                f"{len(further)} losses",
                "one for each optimizer after the first: vqdoctor.Losses(task=…, vq=…, further=(d_loss,))",
            )
        self.main.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        complete(_parameters(self.main))
        for parameter in held:
            parameter.grad = None
        if clip_norm == 0 or _clipped(_parameters(self.main), clip_norm):
            _step(self.main)
            self.taken += 1
        for one, own in zip(self.further, further, strict=True):
            one.zero_grad()
            try:
                own.backward()  # type: ignore[no-untyped-call]
            except RuntimeError as error:
                what = "a loss of Losses.further shares its graph with the task loss"
                raise UserError(what, "compute it on the detached output of the model") from error
            complete(_parameters(one))
            _step(one)

    def state_dict(self) -> list[dict[str, Any]]:
        """Return the state of each."""
        return [one.state_dict() for one in self.all]

    def load_state_dict(self, states: Sequence[dict[str, Any]]) -> None:
        """Take up what `state_dict` returned."""
        for one, state in zip(self.all, states, strict=True):
            one.load_state_dict(state)


def _step(optimizer: torch.optim.Optimizer) -> None:
    """Take a step, or refuse an optimizer that needs more than gradients."""
    try:
        optimizer.step()
    except (TypeError, RuntimeError) as error:  # a closure, as for LBFGS; sparse gradients
        what = f"{type(optimizer).__name__}, which task.optimizer(model) returns, fails at its step: {error}"
        raise UserError(what, "return another optimizer, or give the task a step of its own") from error


def _clipped(parameters: Sequence[torch.nn.Parameter], norm: float) -> bool:
    """Clip the norm of the gradients, and return whether they are finite."""
    return bool(torch.isfinite(torch.nn.utils.clip_grad_norm_(parameters, norm)))


def _parameters(optimizer: torch.optim.Optimizer) -> list[torch.nn.Parameter]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _split(group: dict[str, Any], taken: Sequence[bool]) -> dict[str, Any]:
    """Take parameters out of a group, with their names if it knows them; return these as a new group."""
    settings = {key: value for key, value in group.items() if key not in ("params", "param_names")}
    params, names = group["params"], group.get("param_names")
    whole = params if names is None else list(zip(names, params, strict=True))
    for key in ("params", "param_names"):
        if key in group:
            group[key] = [item for item, is_taken in zip(group[key], taken, strict=True) if not is_taken]
    return {**settings, "params": list(itertools.compress(whole, taken))}


def optimizers_of(task: Task, model: torch.nn.Module, recipe: SavedRecipe | None = None) -> Optimizers:
    """Return the optimizers of the model, and a line that says which they are.

    Raises:
        UserError: if nothing of the model can be trained, or the task brings something else.
    """
    own = getattr(task, "optimizer", None)
    if callable(own):
        given = own(model)
        several = tuple(given) if isinstance(given, list | tuple) else (given,)
        for optimizer in several or (given,):
            if not isinstance(optimizer, torch.optim.Optimizer):
                raise UserError(
                    f"task.optimizer(model) returns a {type(optimizer).__name__}", "return a torch optimizer"
                )
        owner = "the task's own"
        if getattr(task, "trains_itself", False):
            owner = "in the task's own step" + (f", and {len(several) - 1} more" if several[1:] else "")
        elif several[1:]:
            owner += f", and {len(several) - 1} for further losses"
        return Optimizers(main=several[0], further=several[1:], told=f"{_told(several[0])}, {owner}")
    trained = [p for p in model.parameters() if p.requires_grad]
    if not trained:
        raise UserError("the model has no parameter that requires a gradient", "unfreeze some of it")
    if recipe is not None:
        optimizer = recipe.build(model)
        told = "; ".join((f"{_told(optimizer)}, as saved in the file", *recipe.notes))
        return Optimizers(main=optimizer, told=told)
    optimizer = torch.optim.Adam(trained, lr=LEARNING_RATE)
    told = f"{_told(optimizer)}, since neither the task nor the file names an optimizer"
    return Optimizers(main=optimizer, told=told)


def _told(optimizer: torch.optim.Optimizer) -> str:
    """Say what an optimizer is: "trained with Adam, learning rate 0.001, …"."""
    groups = optimizer.param_groups
    parts = [f"trained with {type(optimizer).__name__}"]
    for name, word in (("lr", "learning rate"), ("momentum", "momentum"), ("weight_decay", "weight decay")):
        values = dict.fromkeys(f"{float(group[name]):g}" for group in groups if group.get(name) is not None)
        if any(value != "0" for value in values):
            parts.append(f"{word} {' and '.join(values)}")
    return ", ".join(parts) + (f", in {len(groups)} parameter groups" if len(groups) > 1 else "")


def _kind(group: Mapping[str, Any]) -> type[torch.optim.Optimizer] | None:
    """Return torch's class for an optimizer with such a parameter group; None for a kind of others'.

    Adam and AdamW differ in a key that older versions lack, and then only where there is a weight decay:
    the default of Adam has none.
    """
    if "betas" in group and "momentum_decay" in group:
        return torch.optim.NAdam
    if "betas" in group and "amsgrad" in group:
        decays = bool(number_of(group.get("weight_decay")))
        return torch.optim.AdamW if group.get("decoupled_weight_decay", decays) else torch.optim.Adam
    if "momentum" in group and "nesterov" in group:
        return torch.optim.SGD
    if "alpha" in group and "centered" in group:
        return torch.optim.RMSprop
    return torch.optim.Adagrad if "initial_accumulator_value" in group else None


def _settings(
    optimizer: SavedOptimizer, kind: type[torch.optim.Optimizer]
) -> tuple[list[dict[str, Any]], tuple[str, ...]]:
    """Return the settings of every group, and notes on rates that are not taken.

    The rate is the highest that the group records: a schedule may have ended at nothing.
    """
    highest = HIGHEST_RATES.get(kind.__name__, HIGHEST_RATE)
    settings: list[dict[str, Any]] = []
    notes: dict[str, None] = {}
    for number, group in enumerate(optimizer.groups):
        rates = [slot.highest_rate for slot in optimizer.slots if slot.group == number]
        rate = next((r for r in rates if r), LEARNING_RATE)
        if rate > highest:
            used = LEARNING_RATE
            notes[f"{used:g} in place of its learning rate {rate:g}, which is above {highest:g}"] = None
            rate = used
        settings.append({"lr": rate, **_plain(group, kind)})
    return settings, tuple(notes)


def _plain(group: Mapping[str, Any], kind: type[torch.optim.Optimizer]) -> dict[str, Any]:
    """Return the settings of a group that the class knows, as plain values."""
    known = kind([torch.nn.Parameter(torch.empty(0))]).defaults  # type: ignore[call-arg]
    found: dict[str, Any] = {}
    for name in _SETTINGS:
        value = group.get(name)
        if name not in known or value is None:
            continue
        if isinstance(value, list | tuple):
            several = [number_of(item) for item in value]
            if None not in several:
                found[name] = tuple(several)
        elif isinstance(value, bool) or (value := number_of(value)) is not None:
            found[name] = value
    return found
