"""The launcher: runs the generic virtual machine on the volunteer's PC."""
