"""The causes of poor usage, the likeliest first. Each can explain every symptom of a collapse.

VQ606 is among them whatever its stage: figures are taken in eval mode, and where it differs from training,
they are those of another model than the one that was trained. So are VQ404 and VQ406: steps that are too
large spoil the encoder, the codes and the task alike, and steps that move no weight leave them at their
start. VQ511 is the last: where much of the data is padding, codes that are placed on vectors of the data are
copies of one another.
"""

COLLAPSE = (  # VQ901 is first: beside NaN no other figure counts
    "VQ901", "VQ319", "VQ309", "VQ310", "VQ101", "VQ102", "VQ103", "VQ105", "VQ107", "VQ108", "VQ110",
    "VQ112", "VQ113", "VQ404", "VQ406", "VQ207", "VQ204", "VQ201", "VQ306", "VQ311", "VQ302", "VQ320",
    "VQ304", "VQ205", "VQ206", "VQ202", "VQ606", "VQ321", "VQ314", "VQ315", "VQ316", "VQ317", "VQ301",
    "VQ313", "VQ104", "VQ303", "VQ106", "VQ203", "VQ305", "VQ307", "VQ308", "VQ403", "VQ405", "VQ402",
    "VQ408", "VQ401", "VQ506", "VQ505", "VQ507", "VQ511",
)  # fmt: skip
BEFORE_USE = tuple(code for code in COLLAPSE if not code.startswith("VQ5"))
"""The causes that are not themselves a finding on usage."""
