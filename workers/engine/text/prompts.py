"""The prompts of one pass of a picture: which text each evaluation is told, encoded when it is first
needed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from atelier.prompt.plan import PromptPlan
from workers.engine.denoise.guidance import Prompt
from workers.engine.rows import Context

Encode = Callable[[str], Context]
"""Gives a text's encoding, remembered."""


class PassPrompts:
    """A pass's prompt and negative prompt as the peer schedules them. The plans are those of the pass's own
    number of steps; nothing is encoded before an evaluation asks for it. `blank`: a negative prompt
    that never says anything is zeros, not the encoding of no words.
    """

    def __init__(
        self, positive: PromptPlan, negative: PromptPlan, encode: Encode, *, blank: bool = False
    ) -> None:
        self._positive, self._negative, self._encode = positive, negative, encode
        self._blank = blank and not any(negative.distinct())
        self._zeros: Context | None = None

    def prompts(self, evaluation: int) -> Sequence[Prompt]:
        """The composition that evaluation number `evaluation` (from 0) is told."""
        return [Prompt(self._encode(text), weight) for text, weight in self._positive.texts_at(evaluation)]

    def empty(self) -> Context:
        """The encoding of no words at all."""
        return self._encode("")

    def negative(self, evaluation: int) -> Context:
        """The negative prompt of that evaluation."""
        if self._blank:
            self._zeros = self._zeros or self._encode("").blank()
            return self._zeros
        [(text, _)] = self._negative.texts_at(evaluation)
        return self._encode(text)
