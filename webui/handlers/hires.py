"""What hires fix will make of the size: the line in its header."""

from __future__ import annotations

LATENT_PIXELS = 8
"""Pixels of a picture that one of its latent stands for: sizes are whole multiples of it."""


def final_size(
    width: int | None, height: int | None, scale: float | None, resize_x: int | None, resize_y: int | None
) -> tuple[int, int]:
    """Width and height in pixels after the second pass, as the peer's second pass has it.

    One side to resize to gives the other by the picture's shape; with both, what stands over is cut off;
    with none, both sides grow by `scale`.
    """
    width, height = int(width or 0), int(height or 0)
    to_x, to_y = int(resize_x or 0), int(resize_y or 0)
    if not to_x and not to_y:
        to_x, to_y = int(width * (scale or 1)), int(height * (scale or 1))
    elif not to_y:
        to_y = to_x * height // max(1, width)
    elif not to_x:
        to_x = to_y * width // max(1, height)
    return to_x - to_x % LATENT_PIXELS, to_y - to_y % LATENT_PIXELS


def describe_sizes(
    enabled: bool,
    width: int | None,
    height: int | None,
    scale: float | None,
    resize_x: int | None,
    resize_y: int | None,
) -> str:
    """The header's line, empty while hires fix is off."""
    if not enabled:
        return ""
    to_x, to_y = final_size(width, height, scale, resize_x, resize_y)
    return f"from {width}x{height} to {to_x}x{to_y}"
