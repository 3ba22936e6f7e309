"""The code of advice in the words of the user's model: its attributes, and its library's arguments."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from vqdoctor.core.check import Advice
from vqdoctor.core.report import LayerSummary
from vqdoctor.engine.weights import Weights
from vqdoctor.layouts.families import all_layouts
from vqdoctor.layouts.layout import Vocabulary

WIDEST = 76
"""Columns of a line of code, as in the advice itself."""
_RETURNS = "z_q, indices, vq_loss"


def in_their_words(
    advice: Advice, layers: Sequence[LayerSummary], weights: Mapping[str, Weights] | None = None
) -> str:
    """Return the code of an advice for these layers: of several the first one's, and how many more there are.

    A library's own argument replaces the code where the advice has a setting. Of a weight it does so only
    where the layer's own is the one to change: the task's is called by its name. Otherwise the names
    of the layer become the attributes of the user's model, in their places or, where a line would grow too
    long, in lines before. Without layers, and where their layout does not tell, the code stays in the field's
    names.
    """
    if not layers or not advice.code:
        return advice.code
    layer, more = layers[0], len(layers) - 1
    words = next((known.words for known in all_layouts() if known.name == layer.layout), Vocabulary())
    argument = _argument(advice, words, layer)
    weight = (weights or {}).get(layer.name)
    if argument and advice.setting and weight is not None and weight.is_task_meant(advice.name):
        return f"vq_weight = {advice.setting[1]}   # of the task, in place of {weight.task:g}"
    if argument and not words.of:
        return argument
    known = {**layer.attributes, **({_RETURNS: words.returns} if words.returns else {})}
    if _is_level(layer):  # the user calls the stack, not a level of it
        known.pop("vq", None)
    code = _named(_stored(advice, layer), {name: known[name] for name in advice.names if name in known})
    if more and code != advice.code:
        code += f"\n# and the same on the other {f'{more} layers' if more > 1 else 'layer'}"
    return f"{code}\n# {words.of}: {argument}" if argument else code


def setting_of(
    advice: Advice, layer: LayerSummary, weights: Mapping[str, Weights] | None = None
) -> tuple[str, str, str] | None:
    """Return the class that a library has for a layer, and the argument and the value that an advice sets.

    None where the library is unknown or has no such argument, where the value depends on the training, and
    where the task's weight is the one to change.
    """
    weight = (weights or {}).get(layer.name)
    if weight is not None and weight.is_task_meant(advice.name):
        return None
    words = next((known.words for known in all_layouts() if known.name == layer.layout), Vocabulary())
    told = _argument(advice, words, layer)
    found = re.fullmatch(r"(\w+)\(\.\.\., (\w+)=([\w.]+)(?:, .*)?\)", told)
    if found is None or not (found[3] in ("True", "False") or found[3][0].isdecimal()):
        return None
    return found[1], found[2], found[3]


def _is_level(layer: LayerSummary) -> bool:
    return layer.name.rpartition(".")[2].isdecimal()


def _stored(advice: Advice, layer: LayerSummary) -> str:
    """Return the code without the lines that write counts or sums that the layer does not have."""
    absent = tuple({"counts", "sums"} & {*advice.names} - layer.attributes.keys() if layer.attributes else ())
    lines = [line for line in advice.code.splitlines() if not line.startswith(absent)]
    return "\n".join(lines) or advice.code


def _argument(advice: Advice, words: Vocabulary, layer: LayerSummary) -> str:
    """Return the constructor with the argument that the library has for the advice; "" where it has none."""
    if advice.setting is None or advice.setting[0] not in words.arguments:
        return ""
    argument, value = words.arguments[advice.setting[0]], advice.setting[1]
    name = (_is_level(layer) and words.stack) or words.layer
    if "=" in argument:
        return f"{name}(..., {argument})"
    told = f"{name}(..., {argument}={value})"
    return told if len(told) <= WIDEST else f"{argument} = {value}\n{name}(..., {argument}={argument})"


def _named(code: str, known: dict[str, str]) -> str:
    """Return the code with these names replaced, or given their values in lines before it.

    A tensor that is written in place is written as data: a parameter would refuse it.
    """
    returns = known.pop(_RETURNS, _RETURNS)
    code = code.replace(_RETURNS, returns)
    if not known:
        return code
    for name in known.keys() - {"vq", "parameter"}:
        if re.search(rf"\b{name}(?:\.\w+_\(|\[.*\] = )", code):
            known[name] += ".data"
    words = re.compile(rf"#.*|(?<![\w.])(?:{'|'.join(known)})(?!\w)")
    replaced = words.sub(lambda found: known.get(found[0], found[0]), code)
    if max(map(len, replaced.splitlines())) <= WIDEST:
        return replaced
    return "\n".join([*(f"{name} = {value}" for name, value in known.items()), code])
