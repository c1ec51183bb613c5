"""Units that the page's script keeps beside the form, as JSON in a hidden field, and what they are in a
request.
"""

from __future__ import annotations

import json
from typing import Any


def members(text: object) -> dict[str, Any]:
    """`alwayson_scripts` of the request, nothing where no unit is on. Raises ValueError for what the script
    never writes.
    """
    if not text:
        return {}
    found = json.loads(str(text))
    if not isinstance(found, dict):
        raise ValueError("its units are no table")
    return {"alwayson_scripts": found} if found else {}
