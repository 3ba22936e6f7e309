"""The ablation: one model trained with and without VQ, with each remedy, and with another quantizer."""
