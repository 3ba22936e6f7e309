"""Seeded faults: small models with other people's quantizers, each with one switch from health."""
