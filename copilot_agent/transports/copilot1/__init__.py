"""Our agent with an original Co-Pilot's manager: the carrier, Chirp, and the job's files."""
