"""Thin wrappers over the attack libraries, one file per library. Names are resolved by `audit.registry.attacks`."""
