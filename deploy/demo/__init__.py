"""The demo: eight physics jobs through manager, launcher, a real VM and back."""
