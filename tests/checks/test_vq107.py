"""VQ107 gradient-spikes just inside and just outside its limits."""

from __future__ import annotations

import pytest
from judged import says

from vqdoctor.core.evidence import Evidence, GradientHealth, Initialisation

HEALTH = GradientHealth.healthy()
ALIKE = Initialisation.healthy(identical_rows=256)


@pytest.mark.parametrize(
    ("evidence", "expected"),
    [
        ([HEALTH.replace(broken=1)], "error"),
        ([HEALTH.replace(broken_input=1)], "error"),
        ([HEALTH.replace(worst_gain=1001.0, spikes=1, spike_share=0.51)], "warning"),
        ([HEALTH.replace(worst_gain=999.0, spikes=1, spike_share=0.51)], "passes"),
        ([HEALTH.replace(worst_gain=1e6, spikes=1, spike_share=0.49)], "passes"),
        ([HEALTH.replace(worst_gain=1e6, spikes=1, spike_share=0.9), ALIKE], "cannot judge"),
    ],
)
def test_limits(evidence: list[Evidence], expected: str) -> None:
    assert says("VQ107", *evidence) == expected
