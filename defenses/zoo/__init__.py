"""Small trained checkpoints, each with the manifest of how it was made and what it measures."""
