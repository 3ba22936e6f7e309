"""Results of an ablation as a file: ours, or a dict of configurations as other frameworks write it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

from vqdoctor.core.ablation import KIND, SCHEMA, Study
from vqdoctor.core.codec import decode
from vqdoctor.core.errors import UserError
from vqdoctor.core.json_text import parse
from vqdoctor.core.option import is_finite
from vqdoctor.core.variants import FIGURES, Variant, Variants, judged

LARGEST = 64 << 20
"""Bytes of a file that is read; a study of a thousand trainings has 1 MB."""
RANGES = {"accuracy": (0.0, 100.0), "perplexity": (0.0, math.inf), "ece": (0.0, 100.0)}
"""The values that a figure can have; an accuracy is a share or in percent."""
FORM = "a dict of configurations, each with accuracy, perplexity, loss or ece"


def read_results(path: Path) -> Variants:
    """Read and judge the results of an ablation.

    Raises:
        UserError: if the file cannot be read, or holds something else.
    """
    try:
        if path.stat().st_size > LARGEST:
            raise UserError(f"{path}: too large for the results of an ablation", FORM)
        data = parse(path.read_bytes())
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}", "check the path") from error
    except ValueError as error:  # a wrong encoding too
        raise UserError(f"{path}: no valid JSON ({error})", "write it again") from error
    if isinstance(data, Mapping) and data.get("kind") == KIND:
        if isinstance(schema := data.get("schema"), int) and schema > SCHEMA:
            raise UserError(
                f"{path}: an ablation of schema {schema}, and {SCHEMA} is known", "update vqdoctor"
            )
        own = {name: value for name, value in data.items() if name in Study.__dataclass_fields__}
        return judged(str(path), _cells(decode(Study, own, f"ablation in {path.name}")))
    if isinstance(data, Mapping) and "schema" in data:
        hint = f"vqdoctor gate {path} judges it again"
        raise UserError(f"{path}: a saved report, and neither a checkpoint nor an ablation", hint)
    named = data.items() if isinstance(data, Mapping) else ()
    configurations = {_writable(name): found for name, found in named if isinstance(found, Mapping)}
    if not configurations:
        raise UserError(f"{path}: JSON, but not the results of an ablation", FORM)
    return judged(str(path), [_variant(path, name, found) for name, found in configurations.items()])


def _writable(name: str) -> str:
    """Return a name with what no text holds (half of a pair, in JSON) written out."""
    return name.encode("utf-8", "backslashreplace").decode("utf-8")


def _variant(path: Path, name: str, found: Mapping[str, object]) -> Variant:
    """Return one configuration.

    Raises:
        UserError: if it has none of the figures, or one is not a number.
    """
    figures = {}
    for figure in FIGURES:
        value = found.get(figure)
        if value is None:
            continue
        if not is_finite(value):
            raise UserError(f"{path}: {name}.{figure} is {value!r:.40}, which is not a finite number", FORM)
        low, high = RANGES.get(figure, (-math.inf, math.inf))
        if not low <= value <= high:
            raise UserError(f"{path}: {name}.{figure} is {value!r:.40}, out of its range", FORM)
        figures[figure] = float(value)
    if not figures:
        known = ", ".join(_writable(str(key)) for key in list(found)[:8]) or "nothing"
        raise UserError(f"{path}: {name} has none of the figures; it holds {known}", FORM)
    return Variant(name=name, figures=figures)


def _cells(study: Study) -> list[Variant]:
    """Return the cells of a study of ours, each with its means over the seeds."""
    variants = []
    for cell in study.cells:
        done = study.of(cell)
        if not done:
            continue
        mean = {
            "accuracy": [f.accuracy for f in done if f.accuracy is not None],
            "loss": [f.loss for f in done],
            "ece": [f.ece for f in done if f.ece is not None],
            "num_parameters": [float(f.parameters) for f in done],
            "pi90_coverage": [f.coverage for f in done if f.coverage is not None],
            "avg_pred_set_size": [f.set_size for f in done if f.set_size is not None],
        }
        worst = [
            min(f.layers.values(), key=lambda at: at.perplexity / at.num_codes) for f in done if f.layers
        ]
        mean["perplexity"] = [layer.perplexity for layer in worst] or ([0.0] if cell.without_vq else [])
        figures = {name: sum(values) / len(values) for name, values in mean.items() if values}
        codes = worst[0].num_codes if worst else None
        variants.append(Variant(name=_writable(cell.name), figures=figures, num_codes=codes))
    return variants
