"""Keeps torchvision out of a process that imports this first: nothing here needs it, and where one is
installed that was built for another torch, the libraries that look for it would end with its error.
"""

from __future__ import annotations

import sys

sys.modules["torchvision"] = None  # type: ignore[assignment]  # as if it were not installed
