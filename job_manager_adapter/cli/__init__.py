"""Command lines of users, operators and the manager itself."""
