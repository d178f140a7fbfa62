"""Original agents of Co-Pilot 1: what they are answered, what is handed out and taken in."""
