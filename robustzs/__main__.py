"""`python -m robustzs` is the `robustzs` command."""

from robustzs.cli.main import main

if __name__ == "__main__":
    main()
