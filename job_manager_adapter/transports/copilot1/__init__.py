"""The server end of Co-Pilot 1: an account on which original agents ask for jobs."""
