"""One VQ layer at work: found in a running model, and watched there. Needs torch."""
