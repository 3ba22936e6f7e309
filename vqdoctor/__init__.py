"""vqdoctor: finds out why a vector-quantized model's codebook collapsed, and ranks the fixes."""

from __future__ import annotations

__version__ = "0.1.0"
