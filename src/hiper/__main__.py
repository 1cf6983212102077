"""`python -m hiper`: the command line."""

from hiper.cli import main

main()
