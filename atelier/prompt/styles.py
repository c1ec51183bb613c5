"""Prompt styles: a named text that is put around or behind the prompt."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

PLACE = "{prompt}"
"""Where in a style the prompt goes."""


def apply(prompt: str, style: str) -> str:
    """`style` with `{prompt}` replaced by the prompt, else appended after a comma; an empty style changes
    nothing.
    """
    if PLACE in style:
        return style.replace(PLACE, prompt)
    return ", ".join(part for part in (prompt.strip(), style.strip()) if part)


def length(prompt: str, style: str) -> int:
    """How many characters `apply` makes at most, without making them: a style may name its place often."""
    if PLACE in style:
        return len(style) + style.count(PLACE) * (len(prompt) - len(PLACE))
    return len(prompt) + len(style) + 2


def apply_all(prompt: str, styles: Iterable[str]) -> str:
    """Several styles, one after the other."""
    for style in styles:
        prompt = apply(prompt, style)
    return prompt


def extract(
    prompt: str, negative: str, styles: Mapping[str, tuple[str, str]]
) -> tuple[tuple[str, ...], str, str]:
    """(names, prompt, negative prompt) with every style taken off that both texts show; `styles`: name ->
    (positive, negative).

    Applying the named styles in their order to what is left gives the two texts again, but for space at
    their ends. Styles are tried in the order given, the outermost first; each is found once.
    """
    left = dict(styles)
    prompt, negative = prompt.strip(), negative.strip()
    names: list[str] = []
    while True:
        tried = (
            (name, _taken_off(prompt, negative, style, outermost=not names)) for name, style in left.items()
        )
        name, inner = next(((name, inner) for name, inner in tried if inner), ("", None))
        if inner is None:
            return tuple(reversed(names)), prompt, negative
        prompt, negative = inner
        names.append(name)
        del left[name]


def _taken_off(prompt: str, negative: str, style: tuple[str, str], outermost: bool) -> tuple[str, str] | None:
    if not any(style):
        return None
    positive_inner = _inner(prompt, style[0], outermost)
    negative_inner = _inner(negative, style[1], outermost)
    return None if positive_inner is None or negative_inner is None else (positive_inner, negative_inner)


def _inner(text: str, style: str, outermost: bool) -> str | None:
    """The prompt that `style` makes `text` of; None if there is none. Space at the ends of the whole text is
    nobody's, inside other styles it counts.
    """
    if PLACE in style:
        left, _, right = (style.strip() if outermost else style).partition(PLACE)
        inner = text[len(left) : len(text) - len(right)]
    else:
        inner = text.removesuffix(style.strip()).removesuffix(", ") if style.strip() else text
    if length(inner, style) > len(text) + len(style) + 2:
        return None  # far too long to be the text, perhaps too long to be made
    made = apply(inner, style)
    return inner if made == text or (outermost and made.strip() == text) else None
