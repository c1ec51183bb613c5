"""What one prompt says at every step of one pass: its parts, each with a weight and a schedule."""

from __future__ import annotations

from dataclasses import dataclass, field

from atelier.prompt import composition, schedule


@dataclass(frozen=True)
class PromptPlan:
    """A prompt in one pass. Nothing is put together before a step is asked for; steps that show the same
    share one list.
    """

    parts: list[tuple[schedule.Schedule, float]]
    timelines: list[schedule.Timeline]
    _texts: dict[tuple[int, ...], list[tuple[str, float]]] = field(default_factory=dict, repr=False)

    @property
    def constant(self) -> bool:
        """Whether the prompt says the same at every step."""
        return all(part.constant for part, _ in self.parts)

    def texts_at(self, step: int) -> list[tuple[str, float]]:
        """(text, weight) of every part at sampling step `step`, counted from 0.

        An entry that ends at step n holds at steps 0..n: the first one holds one step longer, as in the peer.
        """
        key = tuple(timeline.end(step) for timeline in self.timelines)
        if key not in self._texts:
            self._texts[key] = [
                (timeline.text(end), weight)
                for timeline, end, (_, weight) in zip(self.timelines, key, self.parts, strict=True)
            ]
        return self._texts[key]

    def spans(self) -> list[tuple[int, int]]:
        """(first, last) sampling steps, counted from 0, inside which `texts_at` stays the same list."""
        ends = sorted({end for timeline in self.timelines for end in timeline.ends})
        return list(zip([0, *(end + 1 for end in ends)], ends, strict=False))

    def distinct(self) -> list[str]:
        """Every text of every part that comes up in the pass, once: what there is to encode."""
        return list(dict.fromkeys(text for timeline in self.timelines for text in timeline.distinct()))


def plan(
    text: str, steps: int, hires_steps: int | None = None, old: bool = False, compose: bool = True
) -> PromptPlan:
    """The plan of a prompt without comments and network tags. Never raises.

    `steps`, `hires_steps`, `old`: as in `schedule.parse`. `compose`: whether AND splits the text, before its
    schedules are read; a negative prompt is one part of weight 1.
    """
    parts = composition.parse(text) if compose else [(text, 1.0)]
    schedules = [(schedule.compile(part), weight) for part, weight in parts]
    timelines = [part.timeline(steps, hires_steps, old) for part, _ in schedules]
    return PromptPlan(schedules, timelines)
