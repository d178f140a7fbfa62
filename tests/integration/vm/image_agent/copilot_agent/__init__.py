"""A stand-in agent that says what the guest looks like."""
