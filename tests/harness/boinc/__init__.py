"""A BOINC project and the real BOINC client for tests."""
