"""A checkpoint that fills a model in part: residual levels that it lacks, and tensors that stay as built."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence

import torch

UNEXPECTED = "in the file but not in the model"
"""Heads the note on the names that only the file has."""
_NAMES_SHOWN = 8
_STATISTICS = ("running_mean", "running_var")
"""Buffers that a training writes, although every model is built with the same."""


def absent_levels(missing: Sequence[str], codebooks: Collection[str]) -> dict[str, tuple[str, ...]]:
    """Return the levels of a stack that the file lacks, each with the missing names under it.

    A level is absent if its codebook is missing, and the codebook of a sibling, whose name differs in the
    number of the level alone, is not.

    Args:
        missing: names of the model that the file lacks.
        codebooks: names of the codebooks that the file has.
    """
    levels: dict[str, tuple[str, ...]] = {}
    for name in missing:
        tokens = name.split(".")
        for place, token in enumerate(tokens):
            siblings = (
                (*tokens[:place], number, *tokens[place + 1 :]) for number in _numbers(codebooks, place)
            )
            if token.isdigit() and any(".".join(sibling) in codebooks for sibling in siblings):
                level = ".".join(tokens[: place + 1])
                levels[level] = tuple(other for other in missing if other.startswith(f"{level}."))
    return levels


def _numbers(codebooks: Collection[str], place: int) -> set[str]:
    tokens = (name.split(".") for name in codebooks)
    return {parts[place] for parts in tokens if place < len(parts) and parts[place].isdigit()}


def silence(model: torch.nn.Module, levels: Collection[str], codebooks: Collection[str]) -> None:
    """Set the codes of absent levels to zero: a residual level then adds nothing to the levels before it."""
    endings = {name.rpartition(".")[2] for name in codebooks}
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            inside = any(name.startswith(f"{level}.") for level in levels)
            if inside and name.rpartition(".")[2] in endings:
                tensor.zero_()


def untrained(
    model: torch.nn.Module, missing: Collection[str], build: Callable[[], torch.nn.Module]
) -> Iterator[str]:
    """Yield the missing names that a training would have written: parameters, statistics, and random buffers.

    Other buffers, such as position tables and filter banks, are the same in every model that is built.
    """
    parameters = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    own = model.state_dict()
    twin = build().state_dict() if set(missing) - parameters else {}
    for name in missing:
        built = own[name]
        trained = name in parameters or name.endswith(_STATISTICS)
        if built.is_floating_point() and (trained or not torch.equal(built, twin[name].to(built))):
            yield name


def few_names(names: Sequence[str]) -> str:
    """Return the first names, and how many more there are."""
    more = f" and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else ""
    return ", ".join(names[:_NAMES_SHOWN]) + more
