"""A plug-in: it imports robustness-audit, which does not know it."""
