"""The pilot's brain: events in, effects out; no I/O and no clock."""
