"""`python -m workers.training`."""

import sys

from workers.training.program import main

if __name__ == "__main__":
    sys.exit(main())
