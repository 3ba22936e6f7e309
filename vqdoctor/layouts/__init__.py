"""State-dict layouts: from a checkpoint's keys and shapes to its VQ layers, each [K, D].

`find_quantizers` looks at a whole file, `state_dicts` splits it into models, and each family of layouts is
one file of `layouts.families`. Nothing here reads a value before a view is asked for it, but scalar flags and
the values of an LFQ's few bits.
"""

from vqdoctor.layouts.find import Found, find_quantizers
from vqdoctor.layouts.layout import Orientation
from vqdoctor.layouts.state_dict import StateDict, state_dicts, strip_prefixes
from vqdoctor.layouts.view import Array, Lookup, QuantizerView, Tensor

__all__ = [
    "Array",
    "Found",
    "Lookup",
    "Orientation",
    "QuantizerView",
    "StateDict",
    "Tensor",
    "find_quantizers",
    "state_dicts",
    "strip_prefixes",
]
