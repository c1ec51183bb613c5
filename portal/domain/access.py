"""Who may use an endpoint or a model, from the rules that name it: a denial beats everything, and what
somebody is allowed by name is closed to everybody else.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class ObjectKind(StrEnum):
    """What a rule is about. A model is of any kind: checkpoint, VAE, LoRA, ..."""

    ENDPOINT = "endpoint"
    MODEL = "model"


class SubjectKind(StrEnum):
    """Whom a rule is about. EVERYBODY's subject is `*`."""

    USER = "user"
    TEAM = "team"
    ROLE = "role"
    EVERYBODY = "everybody"


class Effect(StrEnum):
    """What a rule says."""

    ALLOW = "allow"
    DENY = "deny"


EVERYBODY = "*"


@dataclass(frozen=True)
class Rule:
    """One rule on one object."""

    subject_kind: SubjectKind
    subject: str
    effect: Effect


@dataclass(frozen=True)
class Subject:
    """Somebody as rules see them: their id, their teams' ids, their roles' names."""

    user_id: str
    teams: frozenset[str]
    roles: frozenset[str]

    def meant_by(self, kind: SubjectKind, name: str) -> bool:
        """Whether what is made for that subject is made for them."""
        return {
            SubjectKind.USER: name == self.user_id,
            SubjectKind.TEAM: name in self.teams,
            SubjectKind.ROLE: name in self.roles,
            SubjectKind.EVERYBODY: True,
        }[kind]


def may_use(subject: Subject, rules: Iterable[Rule]) -> bool:
    """Whether `subject` may use the object that all these rules are about.

    Without a rule it is everybody's. A denial that means the subject closes it to them, whatever else is
    said. Where anybody is allowed by name, only who is allowed may.
    """
    rules = list(rules)
    meant = [rule for rule in rules if subject.meant_by(rule.subject_kind, rule.subject)]
    if any(rule.effect is Effect.DENY for rule in meant):
        return False
    allowing = [rule for rule in rules if rule.effect is Effect.ALLOW]
    return not allowing or any(rule.effect is Effect.ALLOW for rule in meant)
