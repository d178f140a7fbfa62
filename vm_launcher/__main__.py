import sys

from vm_launcher.cli import main

if __name__ == "__main__":
    sys.exit(main())
