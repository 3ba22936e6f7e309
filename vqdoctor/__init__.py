"""vqdoctor: finds out why a vector-quantized model's codebook collapsed, and ranks the fixes.

    report = vqdoctor.examine("ckpt.pt")
    report = vqdoctor.examine(model, (x, y))
    report = vqdoctor.examine(model, batch, losses=lambda model, batch: vqdoctor.Losses(task=…, vq=…))
    with vqdoctor.Monitor(model) as monitor: … monitor.step(task_loss=loss)

Importing this loads nothing else: what it offers is imported when it is first asked for.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vqdoctor.engine.monitor import CollapseWarning, Monitor
    from vqdoctor.engine.notebook import Report, examine
    from vqdoctor.models.task import Losses, Task
    from vqdoctor.models.usual_losses import UsualLosses

__version__ = "0.1.0"
__all__ = ["CollapseWarning", "Losses", "Monitor", "Report", "Task", "UsualLosses", "examine"]

_HOMES = {
    "Monitor": "vqdoctor.engine.monitor",
    "CollapseWarning": "vqdoctor.engine.monitor",
    "examine": "vqdoctor.engine.notebook",
    "Report": "vqdoctor.engine.notebook",
    "Task": "vqdoctor.models.task",
    "Losses": "vqdoctor.models.task",
    "UsualLosses": "vqdoctor.models.usual_losses",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()[name] = getattr(importlib.import_module(_HOMES[name]), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
