"""The codes of a file in two principal components, with their use where its counts show it."""

from __future__ import annotations

import contextlib

from vqdoctor.core.evidence import PrincipalPlane
from vqdoctor.layouts.view import QuantizerView
from vqdoctor.probes._plane import plane
from vqdoctor.probes.file._context import FileContext, each_layer
from vqdoctor.probes.file.usage import votes
from vqdoctor.probes.probe import Missing


def measure(context: FileContext, view: QuantizerView) -> PrincipalPlane:
    """Return a layer's codes in their plane."""
    usage = None
    with contextlib.suppress(Missing):
        usage = votes(context, view)
    return plane(view.codebook, usage, source="checkpoint")


PROBE = each_layer(PrincipalPlane, measure)
