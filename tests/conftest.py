"""Makes helper modules beside the tests importable: `--import-mode=importlib` leaves sys.path alone.

Two workers on two cores would else let torch's threads spin against each other. Property tests draw the same
examples in every run (`make fuzz` takes a seed) and have no deadline: a busy machine is no defect.
"""

import os
import sys
from pathlib import Path

import pytest
from hypothesis import settings

TESTS = Path(__file__).parent
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command line does, before torch is imported
sys.path.insert(0, str(TESTS))

from long_tests import LONG  # noqa: E402

settings.register_profile("steady", derandomize=True, deadline=None)
settings.load_profile("steady")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave long tests to `make accept`: before the marks choose."""
    found = set()
    for item in items:
        file = item.path.relative_to(TESTS).as_posix()
        begins = [name for name in LONG.get(file, ()) if item.name.startswith(name)]
        if begins:
            item.add_marker(pytest.mark.accept)
            found |= {(file, name) for name in begins}
    files = {item.path.relative_to(TESTS).as_posix() for item in items}
    gone = [(f, n) for f in sorted(files & LONG.keys()) for n in LONG[f] if (f, n) not in found]
    if gone and not any("::" in argument for argument in config.args):
        raise pytest.UsageError(f"tests/long_tests.py names tests that are not there: {gone}")
