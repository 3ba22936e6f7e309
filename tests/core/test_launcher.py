from __future__ import annotations

import pytest

from vqdoctor.core.launcher import Launched

TORCHRUN = {"TORCHELASTIC_RUN_ID": "none", "RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1"}


def test_the_place_that_the_launcher_tells() -> None:
    again = {**TORCHRUN, "TORCHELASTIC_RESTART_COUNT": "2"}
    assert Launched.of(again) == Launched(rank=3, size=4, local_rank=1, local_size=4, attempt=2)
    two_machines = {**TORCHRUN, "LOCAL_WORLD_SIZE": "2"}
    assert Launched.of(two_machines) == Launched(rank=3, size=4, local_rank=1, local_size=2)


@pytest.mark.parametrize(
    "environment",
    [{}, {"RANK": "3", "WORLD_SIZE": "4"}, {**TORCHRUN, "RANK": "x"}, {**TORCHRUN, "WORLD_SIZE": "1"}],
    ids=["none", "of another scheduler", "no number", "outside"],
)
def test_all_else_is_a_single_process(environment: dict[str, str]) -> None:
    assert Launched.of(environment) == Launched()
