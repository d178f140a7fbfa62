"""Deterministic simulation of pilots, manager, store and network; see docs/reliability.md."""
