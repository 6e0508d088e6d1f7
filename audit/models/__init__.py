"""Models that are not ours: from a Python path, a library, a file, or an object. One file per library, loaded when named."""
