"""The launcher as the main program of a BOINC application."""
