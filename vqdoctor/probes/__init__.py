"""The probes, one file per kind of evidence. Tensors stop here.

`probes.file` reads a checkpoint (numpy), `probes.dump` reads z_e and indices (numpy), and
`probes.model` runs a model (torch, through `capture`). Each is scanned by itself, so that torch is
imported only where a model is examined.
"""
