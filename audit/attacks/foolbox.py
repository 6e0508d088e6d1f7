"""Attacks of foolbox 3.3.4."""
