"""Makes helper modules beside the tests importable: `--import-mode=importlib` leaves sys.path alone.

Two workers on two cores would else let torch's threads spin against each other.
"""

import os
import sys
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command line does, before torch is imported
sys.path.insert(0, str(Path(__file__).parent))
