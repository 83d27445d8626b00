"""`python -m edgekd` is the command `edgekd`."""

from edgekd.cli.main import main

if __name__ == "__main__":
    main()
