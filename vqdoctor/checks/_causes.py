"""The causes of poor usage, likeliest first: what every symptom of a collapse may be explained by."""

from __future__ import annotations

COLLAPSE = (
    "VQ901",  # nothing means much beside NaN
    "VQ101",
    "VQ102",
    "VQ103",
    "VQ201",
    "VQ302",
    "VQ304",
    "VQ202",
    "VQ301",
    "VQ303",
    "VQ401",
)
