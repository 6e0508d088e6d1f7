"""Attacks that no kept library has, written here: small, and each named after its paper. No attack library is imported."""
