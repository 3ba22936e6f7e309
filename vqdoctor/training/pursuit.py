"""Whether the codes keep up with z_e while a model trains."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from vqdoctor.core.retraining import Epoch, Figures

RUNS_AWAY = 1.5
"""How often its lowest error a layer's error is allowed to be, each as a share of the variance of z_e. Codes
that an EMA of decay 0.9999 moves came to 1.7 times the error of their placement in one epoch of digits, and
to 5.5 times in ten; of a tokenizer, waves and a table it fell in 12 to 50 epochs, or rose by 8 % at most."""
PACE = 0.95
"""EMA decay of the codes from then on: a window of 20 batches, which the recipe for small data sets names."""
TIGHTER = 2.0
"""Factor of the VQ loss's weight each time. On those digits, 18 epochs on, with accuracy and perplexity: 0.55
and 9 as it was, 0.52 and 17 with codes placed anew and a larger weight, 0.74 and 29 with the EMA as well."""
MOST = 3
"""How often that is done: by then a weight of 0.1 is 0.8, and up to 1 is usual."""


@dataclass(kw_only=True, eq=False)
class Pursuit:
    """Follows the error of each layer from epoch to epoch.

    Attributes:
        lowest: layer to its lowest error.
        times: how often z_e ran away.
        weighs: whether the VQ loss can be weighed; else its weight stays.
    """

    lowest: dict[str, float] = field(default_factory=dict)
    times: int = 0
    weighs: bool = True

    @property
    def tightening(self) -> float:
        """The factor of the VQ loss's weight."""
        return float(TIGHTER**self.times) if self.weighs else 1.0

    def left_behind(self, stop: Figures | None) -> dict[str, float]:
        """Take an epoch into account, and return the layers whose z_e has run away from the codes.

        The value is their error as a multiple of the lowest. After `MOST` epochs with one it is always empty.
        """
        layers = stop.layers if stop is not None else {}
        errors = {name: layer.error for name, layer in layers.items() if layer.error is not None}
        lost = {}
        for name, error in errors.items():
            lowest = self.lowest[name] = min(error, self.lowest.get(name, error))
            if error > RUNS_AWAY * lowest > 0 and self.times < MOST:
                lost[name] = error / lowest
        self.times += bool(lost)
        return lost

    def told(self, row: Epoch, lost: Mapping[str, float]) -> str:
        """Say what was seen after an epoch, and what is done."""
        layers = ", ".join(f"{name} ({times:.1f} times its lowest error)" for name, times in lost.items())
        weight = f"is {self.tightening:g} times as large" if self.weighs else "stays as it is"
        return (
            f"epoch {row.epoch}: z_e ran away from the codes of {layers}: they were placed anew, an EMA "
            f"moves them from then on, and the weight of the VQ loss {weight}"
        )

    def state_dict(self) -> dict[str, Any]:
        """Return the state for a resumed run."""
        return {"lowest": dict(self.lowest), "times": self.times}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up what `state_dict` returned."""
        self.lowest, self.times = dict(state["lowest"]), state["times"]
