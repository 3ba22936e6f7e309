"""Numbers from arrays, with numpy alone: usage, perplexity, calibration, information, geometry, match."""
