"""Forty ways in which a text becomes a script where somebody forgets that it is text."""

from __future__ import annotations

CALL = "__pwned"
"""The function each of them calls: a test's page has one that tells."""

PAYLOADS: tuple[str, ...] = (
    # elements
    "<script>__pwned(1)</script>",
    "<ScRiPt >__pwned(2)</sCrIpT >",
    "<script src=data:text/javascript,__pwned(3)></script>",
    "<scr<script>ipt>__pwned(4)</scr</script>ipt>",
    "<img src=x onerror=__pwned(5)>",
    "<img/src=x/onerror=__pwned(6)>",
    "<svg onload=__pwned(7)>",
    "<svg><script>__pwned(8)</script></svg>",
    "<svg><animate onbegin=__pwned(9) attributeName=x dur=1s>",
    "<iframe srcdoc='<script>parent.__pwned(10)</script>'></iframe>",
    "<iframe src=javascript:parent.__pwned(11)></iframe>",
    "<object data=javascript:__pwned(12)></object>",
    "<embed src=javascript:__pwned(13)>",
    "<video><source onerror=__pwned(14)></video>",
    "<audio src=x onerror=__pwned(15)>",
    "<details open ontoggle=__pwned(16)>",
    "<input autofocus onfocus=__pwned(17)>",
    "<body onload=__pwned(18)>",
    "<math><mtext><table><mglyph><style><img src=x onerror=__pwned(19)>",
    "<template><img src=x onerror=__pwned(20)></template>",
    "<style onload=__pwned(21)></style>",
    "<marquee onstart=__pwned(22)>",
    "<meta http-equiv=refresh content='0;url=javascript:__pwned(23)'>",
    "<link rel=stylesheet href=javascript:__pwned(24) onerror=__pwned(24)>",
    "<base href=javascript:__pwned(25)//>",
    "<form action=javascript:__pwned(26)><button>go</button></form>",
    # out of an attribute, an element or a script
    '"><script>__pwned(27)</script>',
    "'><img src=x onerror=__pwned(28)>",
    '" autofocus onfocus="__pwned(29)',
    "' onmouseover='__pwned(30)",
    "</textarea><script>__pwned(31)</script>",
    "</title></style></script><script>__pwned(32)</script>",
    "'-__pwned(33)-'",
    "\\u003cimg src=x onerror=__pwned(34)\\u003e",
    # addresses, templates, markup languages
    "javascript:__pwned(35)",
    "data:text/html,<script>parent.__pwned(36)</script>",
    "${__pwned(37)}",
    "{{constructor.constructor('__pwned(38)')()}}",
    "[click](javascript:__pwned(39))",
    "&lt;img src=x onerror=__pwned(40)&gt;",
)
