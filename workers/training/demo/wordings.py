"""The prompts the demo checkpoint is trained with, and their CLIP tokens.

Every word used is a single token of the full CLIP vocabulary, so that training needs a short
table instead of the tokenizer; a test compares the table with the tokenizer itself.
"""

from __future__ import annotations

import re

import numpy as np

from workers.training.demo.shapes import COLOURS, SHAPES, Scene

LENGTH = 77
START, END = 49406, 49407
VOCABULARY = 49408

SIZE_WORDS = {"": ("",), "small": ("small", "small", "tiny"), "big": ("big", "large")}
PLACE_WORDS = {
    "": ("",),
    "left": ("on the left", "left"),
    "right": ("on the right", "right"),
    "top": ("at the top", "top"),
    "bottom": ("at the bottom", "bottom"),
    "top left": ("in the top left corner", "at the top left", "top left"),
    "top right": ("in the top right corner", "at the top right", "top right"),
    "bottom left": ("in the bottom left corner", "at the bottom left", "bottom left"),
    "bottom right": ("in the bottom right corner", "at the bottom right", "bottom right"),
}
CANONICAL = "a {thing} on a {background} background"
WORDINGS = (
    "{thing} on a {background} background",
    "a {thing} on {background}",
    "{thing} on {background}",
    "{thing}, {background} background",
    "{background} background, {thing}",
    "a {background} background with a {thing}",
    "a picture of a {thing} on a {background} background",
    "a drawing of a {thing} on a {background} background",
    "a {thing} in front of a {background} background",
    "the {thing} is on a {background} background",
)
SHARE_EMPTY, SHARE_PARTIAL, SHARE_CANONICAL, SHARE_STRANGE = 0.1, 0.06, 0.45, 0.12

TOKENS: dict[str, int] = {
    "a": 320, "on": 525, "the": 518, "at": 536, "in": 530, "of": 539, "is": 533, "with": 593,
    "front": 2184, "picture": 1674, "drawing": 3610, "background": 5994, "corner": 5253,
    "small": 2442, "tiny": 5591, "big": 1205, "large": 3638, "left": 1823, "right": 1155,
    "top": 1253, "bottom": 5931, "red": 736, "green": 1901, "blue": 1746, "yellow": 4481,
    "teal": 22821, "purple": 5496, "white": 1579, "black": 1449, "circle": 7117, "square": 3999,
    "triangle": 14615, "star": 1565, "diamond": 6235, "heart": 1936, "cross": 3417, "ring": 2540,
    ",": 267,
}  # fmt: skip

_WORD = re.compile(r"[a-z]+|,|<\d>")


def canonical(scene: Scene) -> str:
    """The wording the model is judged by: ``a red circle on a blue background``."""
    thing = " ".join(w for w in (scene.size, scene.colour, scene.shape) if w)
    place = PLACE_WORDS[scene.position][0]
    text = CANONICAL.format(thing=thing, background=scene.background)
    return f"{text}, {place}" if place else text


def _partial(scene: Scene, rng: np.random.Generator) -> str:
    """A prompt that leaves things open, which are then any."""
    return str(
        rng.choice(
            (
                f"a {scene.colour} {scene.shape}",
                f"{scene.colour} {scene.shape}",
                f"a {scene.shape}",
                f"a {scene.background} background",
            )
        )
    )


def _strange(text: str, rng: np.random.Generator) -> str:
    """The prompt with up to three words the model never learned, ``<0>`` to ``<9>``.

    They stand for any row of the vocabulary, so that quality words and the like do no harm.
    """
    words = " ".join(f"<{i}>" for i in rng.integers(0, 10, size=rng.integers(1, 4)))
    return f"{words}, {text}" if rng.random() < 0.3 else f"{text}, {words}"


def caption(scene: Scene, rng: np.random.Generator) -> str:
    """One of the wordings of a scene, sometimes partial, sometimes empty (for guidance)."""
    chance = rng.random()
    if chance < SHARE_EMPTY:
        return ""
    if chance < SHARE_EMPTY + SHARE_PARTIAL and not scene.size and not scene.position:
        return _partial(scene, rng)
    size, place = (str(rng.choice(words)) for words in (SIZE_WORDS[scene.size], PLACE_WORDS[scene.position]))
    thing = " ".join(w for w in (size, scene.colour, scene.shape) if w)
    wording = CANONICAL if rng.random() < SHARE_CANONICAL else str(rng.choice(WORDINGS))
    text = wording.format(thing=thing, background=scene.background)
    if place:
        text = f"{text}, {place}" if rng.random() < 0.7 else f"{text} {place}"
    return _strange(text, rng) if rng.random() < SHARE_STRANGE else text


def split(text: str) -> list[str]:
    """The words and commas of a prompt, lower case."""
    return _WORD.findall(text.lower())


def encode(text: str) -> list[int]:
    """The 77 CLIP tokens of a prompt made of known words; END pads, as SD1.5 does."""
    ids = [START, *(TOKENS[word] for word in split(text)), END]
    return ids + [END] * (LENGTH - len(ids))


def attributes(text: str, scene: Scene) -> tuple[int, int, int, int, int]:
    """What a prompt says of shape, colour, background, size and position, as class numbers.

    0 is "not said". The pretraining of the text encoder asks for these.
    """
    words = set(split(text))
    said_background = "background" in words or "on" in words
    sizes, places = list(SIZE_WORDS), list(PLACE_WORDS)
    bare_background = words == {"a", scene.background, "background"}
    return (
        SHAPES.index(scene.shape) + 1 if scene.shape in words else 0,
        COLOURS.index(scene.colour) + 1 if scene.colour in words and not bare_background else 0,
        COLOURS.index(scene.background) + 1 if said_background else 0,
        sizes.index(scene.size) if words else 0,
        places.index(scene.position) if words else 0,
    )
