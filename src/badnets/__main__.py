"""`python -m badnets` is `badnets`."""

from badnets.cli.main import main

if __name__ == "__main__":
    main()
