"""Modules that wrap a classifier so that an attack sees it better. Each maps images to logits like what it wraps."""
