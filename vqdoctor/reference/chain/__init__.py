"""The chain Conv2d → VQ → HDP → HSMM: a classifier of every time step of motion-sensor sequences."""
