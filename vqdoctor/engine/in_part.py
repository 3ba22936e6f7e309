"""A checkpoint that fills its model in part: what is missing may not matter, or make it another model.

This module needs torch; it is imported where a model is run.
"""

from __future__ import annotations

from vqdoctor.capture.run import Capture
from vqdoctor.core.errors import UserError
from vqdoctor.models.examined import ExaminedModel
from vqdoctor.models.partial import UNEXPECTED, few_names
from vqdoctor.models.untouched import unwrapped_name


def refuse_in_part(model: ExaminedModel, capture: Capture) -> None:
    """Refuse a model that is not the trained one: what z_e or the task depends on is not in the file.

    Raises:
        UserError: if it is so; it names the tensors.
    """
    if not model.lacking:
        return
    layers, task = capture.moved_by({unwrapped_name(model.model, name) for name in model.lacking})
    if layers or task:
        needing = " and ".join((*(["z_e"] if layers else []), *(["the task loss"] if task else [])))
        extra = next((f"; {note}" for note in model.load_notes if note.startswith(UNEXPECTED)), "")
        raise UserError(
            f"{needing} would come from untrained weights: the file lacks {few_names(model.lacking)}",
            f"build the model that the checkpoint was saved from{extra}",
        )
