"""What a finding still asks for, by what was given."""

from __future__ import annotations

import pytest

from vqdoctor.checks import all_checks
from vqdoctor.core.evidence import Evidence, GradientPath, OptimizerMemory, TaskMetrics, Usage
from vqdoctor.engine.evaluate import evaluate

NO_OPTIMIZER = OptimizerMemory(source="checkpoint", sample_size=0, parameters=0)


@pytest.mark.parametrize(
    ("given", "asks"),
    [
        ([], "--data batch.npz"),
        ([Usage.healthy(source="checkpoint")], "--data batch.npz"),
        ([Usage.healthy()], "--task FILE.py:NAME"),  # dumped vectors, without the model
        ([GradientPath.healthy(), Usage.healthy()], ""),
        ([TaskMetrics.healthy()], ""),
    ],
)
def test_no_finding_asks_for_data_that_was_given(given: list[Evidence], asks: str) -> None:
    checks = [check for check in all_checks() if check.code == "VQ903"]
    (found,) = evaluate(checks, ["vq"], [NO_OPTIMIZER, *given], []).findings
    assert found.decide_with == asks


def test_data_of_another_layer_is_none_of_this_one() -> None:
    checks = [check for check in all_checks() if check.code == "VQ101"]
    starved = OptimizerMemory.healthy(before_gradient=4.6e-6, after_gradient=3.1e-3, ratio=0.0015)
    for layer, asks in (("vq", "--task FILE.py:NAME"), ("other", "--data batch.npz")):
        found = evaluate(checks, ["vq", "other"], [starved, Usage.healthy(layer=layer)], []).findings
        assert {f.decide_with for f in found if f.layer == "vq"} == {asks}
