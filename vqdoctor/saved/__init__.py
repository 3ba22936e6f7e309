"""The training as a file remembers it: optimizer, record, decay. This room needs no torch."""
