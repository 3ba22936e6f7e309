"""The monitor inside of trainers: thin callbacks, each beside the package that it is for."""
