"""What the prompts of a part say in each of its passes, step by step."""

from __future__ import annotations

from typing import NamedTuple

from atelier.contract.parts import ResolvedPart
from atelier.prompt import networks
from atelier.prompt.plan import PromptPlan, plan
from atelier.vocabulary import find_sampler


class Spoken(NamedTuple):
    """The plans of one pass's prompt, without network tags, and negative prompt."""

    positive: PromptPlan
    negative: PromptPlan


def plans(part: ResolvedPart, *, old: bool | None = None) -> tuple[Spoken, ...]:
    """The plans of the part's passes, in order. `old` overrules the part's own option of old scheduling."""
    settings, second = part.settings, part.hires
    old = settings.use_old_scheduling if old is None else old
    count = find_sampler(part.sampler)[0].counted(part.steps)
    first = _spoken(part.prompt, part.negative_prompt, count, None, old)
    if second is None:
        return (first,)
    again = find_sampler(second.sampler)[0].counted(second.steps)
    return (first, _spoken(second.prompt, second.negative_prompt, count, again, old))


def _spoken(prompt: str, negative: str, steps: int, hires_steps: int | None, old: bool) -> Spoken:
    return Spoken(
        plan(networks.extract(prompt)[0], steps, hires_steps, old=old),
        plan(negative, steps, hires_steps, old=old, compose=False),
    )
