"""`python -m portal.cli`: the command `atelier` where it is not installed as a script."""

import sys

from portal.cli import main

if __name__ == "__main__":
    sys.exit(main())
