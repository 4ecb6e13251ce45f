"""`python -m jepa_mpc` is `jepa-mpc`, for torchrun and other launchers."""

from jepa_mpc.cli import main

main()
