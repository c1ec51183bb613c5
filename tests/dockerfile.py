"""Dockerfiles as the tests read them: instructions, stages, and what variables stand for."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

_VARIABLE = re.compile(r"\$\{(\w+)\}|\$(\w+)")


@dataclass(frozen=True)
class Instruction:
    """One instruction: its word in capitals, and what follows it on its joined lines."""

    word: str
    text: str

    @property
    def exec_form(self) -> list[str] | None:
        """The words of a JSON array, None for anything else."""
        try:
            words = json.loads(self.text)
        except ValueError:
            return None
        return words if isinstance(words, list) and all(isinstance(each, str) for each in words) else None

    @property
    def words(self) -> list[str]:
        """The words as a shell splits them."""
        return shlex.split(self.text)

    @property
    def flags(self) -> dict[str, str]:
        """`--name=value` words at the beginning."""
        flags = (each.removeprefix("--").partition("=") for each in self.words if each.startswith("--"))
        return {name: value for name, _, value in flags}

    @property
    def arguments(self) -> list[str]:
        """The words without flags."""
        return [each for each in self.words if not each.startswith("--")]


@dataclass
class Stage:
    """One FROM and what follows it."""

    base: str
    name: str
    steps: list[Instruction] = field(default_factory=list)

    def of(self, word: str) -> list[Instruction]:
        """The stage's instructions of a kind."""
        return [each for each in self.steps if each.word == word]

    def last(self, word: str) -> Instruction | None:
        """The one that counts."""
        return (self.of(word) or [None])[-1]


@dataclass
class Dockerfile:
    """A file's stages, and the arguments that stand before the first."""

    arguments: dict[str, str]
    stages: list[Stage]

    @property
    def final(self) -> Stage:
        """The stage that becomes the image."""
        return self.stages[-1]


def read(path: Path) -> Dockerfile:
    """The file at `path`. Raises ValueError for what comes before the first FROM and is no ARG."""
    file = Dockerfile({}, [])
    for each in instructions(path.read_text(encoding="utf-8")):
        if each.word == "FROM":
            base, *rest = each.words
            file.stages.append(Stage(base, rest[1] if rest[:1] == ["AS"] else str(len(file.stages))))
        elif file.stages:
            file.stages[-1].steps.append(each)
        elif each.word == "ARG":
            name, _, value = each.text.partition("=")
            file.arguments[name] = value
        else:
            raise ValueError(f"{path.name}: {each.word} before FROM")
    return file


def instructions(text: str) -> list[Instruction]:
    """The instructions of a Dockerfile's text, comments left out."""
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    joined = re.sub(r"\s*\\\n\s*", " ", "\n".join(lines))
    pairs = (line.strip().partition(" ") for line in joined.splitlines())
    return [Instruction(word.upper(), rest.strip()) for word, _, rest in pairs]


def filled(text: str, values: Mapping[str, str]) -> str:
    """`text` with its variables replaced; one that is not set is empty, as Docker has it."""
    return _VARIABLE.sub(lambda match: values.get(match[1] or match[2], ""), text)
