"""Attacks of the Adversarial Robustness Toolbox 1.20.1."""
