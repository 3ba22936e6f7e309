"""Words that several pictures share."""

from __future__ import annotations

from collections.abc import Mapping

from vqdoctor.core.evidence import Source

FROM: Mapping[Source, str] = {"batch": "on data", "trace": "in training", "checkpoint": "from the file"}
"""Where a usage comes from."""
