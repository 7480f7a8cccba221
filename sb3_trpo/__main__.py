"""Runs the ``sb3-trpo`` command as ``python -m sb3_trpo``."""

from sb3_trpo.command_line.main import main

if __name__ == "__main__":
    main()
