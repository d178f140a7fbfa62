"""`python -m copilot_agent`; in the guest hello comes before the command line's own imports."""

import sys


def main() -> int:
    if sys.argv[1:] == ["guest"]:
        from copilot_agent.boot import main as boot_main

        return boot_main()
    from copilot_agent.cli import main as cli_main

    return cli_main()


if __name__ == "__main__":
    sys.exit(main())
