"""`python -m ssp` is the command line `ssp`."""

from ssp.cli import main

main()
