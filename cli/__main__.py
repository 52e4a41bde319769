"""`python -m cli` is `hfc`."""

from cli.main import main

main()
