"""`python -m khotan_cli`."""

from khotan_cli.cli import main

if __name__ == "__main__":
    main()
