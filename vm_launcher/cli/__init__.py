from vm_launcher.cli.main import main

__all__ = ["main"]
