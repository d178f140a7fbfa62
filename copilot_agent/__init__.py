"""The pilot: the program inside the virtual machine, and the owner of every contract."""
