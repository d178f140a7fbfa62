"""Real programs for tests: a manager, agents, a launcher; started, killed and restarted."""
