"""Makes helper modules beside the tests importable: `--import-mode=importlib` leaves sys.path alone.

Two workers on two cores would else let torch's threads spin against each other. Property tests draw the same
examples in every run (`make fuzz` takes a seed) and have no deadline: a busy machine is no defect.
"""

import os
import sys
from pathlib import Path

from hypothesis import settings

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command line does, before torch is imported
sys.path.insert(0, str(Path(__file__).parent))

settings.register_profile("steady", derandomize=True, deadline=None)
settings.load_profile("steady")
