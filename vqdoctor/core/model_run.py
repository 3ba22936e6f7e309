"""Whether a report's evidence comes from a model that was run."""

from __future__ import annotations

from collections.abc import Iterable

from vqdoctor.core.evidence import Evidence, GradientPath, TaskMetrics, UnsavedTable

RUN = (GradientPath, TaskMetrics, UnsavedTable)
"""Evidence that only a run of the model gives; the last two need no VQ layer that is seen at work."""


def was_run(evidence: Iterable[Evidence]) -> bool:
    """Return whether a model was run, even if its VQ layers were not seen at work."""
    return any(isinstance(item, RUN) for item in evidence)
