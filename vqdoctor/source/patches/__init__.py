"""The patches, one file each."""
