"""The arguments that a model was built with, as Lightning's `save_hyperparameters` records them in a file."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from vqdoctor.checkpoint import children

RECORDED = "hyper_parameters"
_PLAIN = (bool, int, float, str, type(None))
_MAX_DEPTH = 8


def recorded_arguments(tree: Any, factory: Callable[..., object]) -> dict[str, Any]:
    """Return the recorded arguments that a factory takes by name; a factory's **kwargs takes none.

    They are plain values, or lists and dicts of these: a file's objects are never passed on.
    """
    recorded = tree.get(RECORDED) if isinstance(tree, Mapping) else None
    try:
        parameters = inspect.signature(factory).parameters.values()
    except (TypeError, ValueError):
        return {}
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    names = {parameter.name for parameter in parameters if parameter.kind in named}
    return {key: value for key, value in children(recorded) if key in names and _is_plain(value)}


def differences(arguments: Mapping[str, Any], factory: Callable[..., object]) -> tuple[str, ...]:
    """Return the arguments that differ from the factory's defaults, each as "name=value (default …)"."""
    parameters = inspect.signature(factory).parameters
    shown = []
    for name, value in arguments.items():
        default = parameters[name].default
        if default is inspect.Parameter.empty:
            shown.append(f"{name}={value!r}")
        elif default != value:
            shown.append(f"{name}={value!r} (default {default!r})")
    return tuple(shown)


def _is_plain(value: Any, depth: int = 0) -> bool:
    if isinstance(value, list | tuple | dict) and depth < _MAX_DEPTH:
        inner = value.values() if isinstance(value, dict) else value
        return all(_is_plain(item, depth + 1) for item in inner)
    return isinstance(value, _PLAIN)
