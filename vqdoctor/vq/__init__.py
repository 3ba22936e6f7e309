"""The arithmetic of a codebook: k-means, revival, gradient estimators, EMA statistics."""
