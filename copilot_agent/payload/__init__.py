"""Runs payloads and moves their files: confinement, limits, staging."""
