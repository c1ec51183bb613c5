"""What never stands in a log: passwords, tokens, keys, cookies, signed addresses, prompts.

Two nets, since either has holes: values that a process knows to be secret (`hide`), and texts that look like
secrets wherever they come from.
"""

from __future__ import annotations

import re
from collections.abc import Callable

HIDDEN = "***"
LEAST = 6
"""Shorter values are not looked for: they would be found in every other word."""

_NAMES = (
    r"[\w-]*(?:passw(?:or)?d|secret|token|api[_-]?key|job[_-]?key|private[_-]?key|authorization|signature"
    r"|credential)[\w-]*"
)
_QUOTED = r"\"(?:\\.|[^\"\\])*\"|'(?:\\.|[^'\\])*'"
_Replacement = str | Callable[[re.Match[str]], str]

_PATTERNS: tuple[tuple[re.Pattern[str], _Replacement], ...] = tuple(
    (re.compile(pattern, re.IGNORECASE if ignoring else 0), replacement)
    for pattern, replacement, ignoring in (
        # Credentials of HTTP, by scheme.
        (r"\b(bearer|basic)\s+[a-z0-9._~+/=-]{6,}", rf"\1 {HIDDEN}", True),
        # Our API keys, signed tokens (RFC 7519), and the 32 random bytes of sessions and invitations.
        (r"\batl_[A-Za-z0-9_-]{8,}", HIDDEN, False),
        (r"\beyJ[A-Za-z0-9_-]{6,}\.[A-Za-z0-9_-]{4,}\.[A-Za-z0-9_-]*", HIDDEN, False),
        (
            r"(?<![\w-])(?=[\w-]*[a-z])(?=[\w-]*[A-Z])(?=[\w-]*[0-9])[A-Za-z0-9_-]{43}(?![\w-])",
            HIDDEN,
            False,
        ),
        # Whole headers of cookies.
        (r"((?:set-)?cookie['\"]?\s*[:=]\s*['\"]?)[^\r\n'\"]+", rf"\1{HIDDEN}", True),
        # Passwords within addresses, and what signs an address.
        (r"(//[^/\s:@'\"]*:)[^@\s/'\"]+@", rf"\1{HIDDEN}@", True),
        (r"([?&](?:x-amz-[\w-]+|x-goog-[\w-]+|key-pair-id|policy|sig)=)[^&\s'\"]+", rf"\1{HIDDEN}", True),
        # Whatever is called a secret.
        (rf"({_NAMES}['\"]?\s*[:=]\s*)({_QUOTED}|[^\s'\"&,;)}}\]]+)", rf"\1{HIDDEN}", True),
        # Prompts, in JSON and as Python shows them, and what pydantic quotes of an input.
        (rf"((?:negative_)?prompts?['\"]?\s*[:=]\s*)({_QUOTED}|\[[^\]]*\])", rf"\1{HIDDEN}", True),
        (r"(input_value=).*?(, input_type=)", rf"\1{HIDDEN}\2", False),
    )
)

_known: set[str] = set()


def hide(*secrets: str | None) -> None:
    """Let no log line of this process hold these values from now on."""
    _known.update(each for each in secrets if each and len(each) >= LEAST)


def redacted(text: str, also: tuple[str, ...] = ()) -> str:
    """`text` without what looks like a secret, what `hide` was told, and `also`."""
    for secret in sorted((*_known, *(each for each in also if len(each) >= LEAST)), key=len, reverse=True):
        text = text.replace(secret, HIDDEN)
    for pattern, replacement in _PATTERNS:
        text = pattern.sub(replacement, text)
    return text
