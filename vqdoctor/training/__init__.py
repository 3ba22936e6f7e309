"""Training: a sick model retrained with remedies, epoch by epoch, to its goals."""
