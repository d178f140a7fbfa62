"""The guest's end of the channels to the launcher.

Nothing is imported here: `hello` belongs to the boot path, where each import costs a second.
"""
