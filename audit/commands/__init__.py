"""The commands of the command line, one file each. They parse flags and print; the work is done elsewhere."""
