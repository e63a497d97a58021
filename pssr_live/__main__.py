"""``python -m pssr_live``."""

from pssr_live.cli import main

main()
