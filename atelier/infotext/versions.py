"""What the peer's versions did differently, as the options that bring it back."""

from __future__ import annotations

import re
from collections.abc import Mapping

Version = tuple[int, int, int, int]
"""Major, minor, patch, commits since; commits since is -1 before the release."""

_VERSION = re.compile(
    r"v?(\d{1,6})\.(\d{1,6})(?:\.(\d{1,6}))?(?:-(\d{1,6})|(-?(?:rc|alpha|beta|a|b)\d{0,6}))?(?:-[\w.-]*)?\Z",
    re.IGNORECASE | re.ASCII,
)
_EDITING_BY_PASS: Version = (1, 6, 0, 0)
_FULL_PRECISION_ALPHAS: Version = (1, 7, 0, 225)
_REFINER_BY_NOISE: Version = (1, 8, 0, 0)
_STYLED_HIRES_PROMPTS: Version = (1, 8, 0, 139)


def version(text: str) -> Version | None:
    """`v1.7.0-225-gabcdef` as (1, 7, 0, 225), `1.6.0-RC` as (1, 6, 0, -1); None for what is no version of the
    peer.
    """
    found = _VERSION.match(text.strip())
    if found is None:
        return None
    since = -1 if found[5] else int(found[4] or 0)
    return int(found[1]), int(found[2]), int(found[3] or 0), since


def styles_hires_prompts(parsed: Mapping[str, object]) -> bool:
    """Whether styles went into the second pass's prompts too; a text without a version counts as new."""
    made_with = version(str(parsed.get("Version", "")))
    return made_with is None or made_with > _STYLED_HIRES_PROMPTS


def compatibility(parsed: Mapping[str, object]) -> dict[str, object]:
    """The entries that make a text of an older version mean what it meant; none without a version."""
    made_with = version(str(parsed.get("Version", "")))
    if made_with is None:
        return {}
    needed: dict[str, object] = {}
    if made_with < _EDITING_BY_PASS and "[" in str(parsed.get("Prompt", "")):
        needed["Old prompt editing timelines"] = True
    if made_with < _EDITING_BY_PASS and parsed.get("Sampler") in ("DDIM", "PLMS"):
        needed["Pad conds v0"] = True
    if made_with < _FULL_PRECISION_ALPHAS:
        needed["Downcast alphas_cumprod"] = True
    if made_with < _REFINER_BY_NOISE and parsed.get("Refiner"):
        needed["Refiner switch by sampling steps"] = True
    return needed
