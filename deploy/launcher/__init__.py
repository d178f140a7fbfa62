"""Builds the launcher as one file that runs without Python on the host."""
