"""Generation parameters as text: rendered and parsed as the peer does (AUTOMATIC1111 v1.10.1)."""

from atelier.infotext.grammar import quote, unquote
from atelier.infotext.parsing import parse
from atelier.infotext.rendering import BASELINE, parameters, render

__all__ = ["BASELINE", "parameters", "parse", "quote", "render", "unquote"]
