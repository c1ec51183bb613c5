"""The wire between browser, portal and workers. Everything here is frozen data and pure functions."""

CONTRACT_VERSION = "1.2"
"""Major.minor of the wire between portal, workers and extensions: the major number must be equal on both
sides.
"""


def understands(version: str) -> bool:
    """Whether this side of the wire can serve a body of contract `version` (same major, minor not newer)."""
    try:
        major, minor = (int(number) for number in version.split("."))
    except ValueError:
        return False
    own_major, own_minor = (int(number) for number in CONTRACT_VERSION.split("."))
    return major == own_major and minor <= own_minor
