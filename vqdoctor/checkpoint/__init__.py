"""Checkpoints: read, never executed, and without torch.

`open_checkpoint` is the way in, and `write_checkpoint` the way out.
A kind of file is one module in `containers/`.
"""

from vqdoctor.checkpoint.model import Checkpoint
from vqdoctor.checkpoint.opening import open_checkpoint
from vqdoctor.checkpoint.tensor import LazyTensor
from vqdoctor.checkpoint.tree import Inert, children, containers_in, settings, walk
from vqdoctor.checkpoint.writing import check_output, write_checkpoint, write_folder
from vqdoctor.core.errors import CheckpointError

__all__ = [
    "Checkpoint",
    "CheckpointError",
    "Inert",
    "LazyTensor",
    "check_output",
    "children",
    "containers_in",
    "open_checkpoint",
    "settings",
    "walk",
    "write_checkpoint",
    "write_folder",
]
