"""Attacks of our own, one a file: what no kept library has. They know models only, and no attack library."""
