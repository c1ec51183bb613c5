"""`python -m workers.tasks`."""

import sys

from workers.tasks.program import main

if __name__ == "__main__":
    sys.exit(main())
