"""Builds the VM image from Debian packages and wheels without root."""
