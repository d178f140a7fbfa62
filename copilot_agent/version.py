"""The agent's version; the guest has no package metadata."""

VERSION = "0.1.0"
