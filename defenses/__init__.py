"""Defenses: training recipe, inference-time part, traits and claims, one module or folder per method."""
