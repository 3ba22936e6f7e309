"""What a file remembers of its training: optimizer, record, decay. This room needs no torch."""
