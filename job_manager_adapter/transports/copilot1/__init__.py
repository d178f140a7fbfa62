"""Co-Pilot 1: original agents on this manager, and original monitors beside it."""
