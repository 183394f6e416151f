"""``python -m enzyme_stability``: the command line, for launchers that start modules."""

from enzyme_stability.cli import main

main()
