"""Torch: the Task protocol, locating and watching a VQ layer, code assignment, k-means."""
