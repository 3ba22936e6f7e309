"""The kinds of files that are read: one module each, which defines `CONTAINER`."""
