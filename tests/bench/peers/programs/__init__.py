"""What the peers run, in their own virtual environment: nothing of ours can be imported here."""
