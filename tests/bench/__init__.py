"""Measurements: never asserted in tests, written down in docs/measurements.md."""
