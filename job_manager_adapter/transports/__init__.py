"""The server ends of the carriers."""
