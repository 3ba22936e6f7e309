"""Scale the scores by a temperature.

It changes the confidences and not the predicted classes. Fit it on data that neither training nor the
reported figures use. It cures the symptom: where the report names a cause, mend that first.
"""

from __future__ import annotations

from vqdoctor.core.levels import Safety, Stage
from vqdoctor.core.remedy import Remedy

REMEDY = Remedy(
    name="calibrate",
    stage=Stage.DOWNSTREAM,
    safety=Safety.UNSAFE,
    addresses=("VQ603",),
    how="Divide the class scores by one temperature that is fitted on held-out data.",
    code="candidates = torch.linspace(0.2, 10, 491)\n"
    "loss = [F.cross_entropy(logits / t, labels) for t in candidates]\n"
    "temperature = candidates[torch.stack(loss).argmin()]",
    doc=__doc__,
)
