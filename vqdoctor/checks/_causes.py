"""The causes of poor usage, likeliest first: what every symptom of a collapse may be explained by."""

from __future__ import annotations

COLLAPSE = (
    "VQ901",  # nothing means much beside NaN
    "VQ309",
    "VQ310",
    "VQ101",
    "VQ102",
    "VQ103",
    "VQ105",
    "VQ107",
    "VQ108",
    "VQ204",
    "VQ201",
    "VQ306",
    "VQ302",
    "VQ304",
    "VQ205",
    "VQ206",
    "VQ202",
    "VQ301",
    "VQ104",
    "VQ303",
    "VQ106",
    "VQ203",
    "VQ305",
    "VQ307",
    "VQ308",
    "VQ403",
    "VQ402",
    "VQ401",
    "VQ506",
    "VQ505",
    "VQ507",
)
BEFORE_USE = tuple(code for code in COLLAPSE if not code.startswith("VQ5"))
"""Those that are no matter of usage themselves."""
