"""The permissions there are, and which role has which. A route names one of them, or it does not exist."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

Risk = Literal["low", "medium", "high"]


@dataclass(frozen=True)
class Permission:
    """One thing somebody may do. `risk` says what a wrong grant costs: low own things, medium others' work,
    high everything.
    """

    id: str
    group: str
    risk: Risk
    description: str


REGISTRY: tuple[Permission, ...] = (
    Permission("account.read", "account", "low", "See one's own account and permissions."),
    Permission(
        "account.change", "account", "low", "Change one's own password and settings, end one's own sessions."
    ),
    Permission("account.keys", "account", "medium", "Make and revoke one's own API keys."),
    Permission("jobs.submit", "jobs", "low", "Have pictures made."),
    Permission("jobs.read", "jobs", "low", "See one's own jobs, their progress and previews."),
    Permission("jobs.control", "jobs", "low", "Interrupt, skip and cancel one's own jobs."),
    Permission("jobs.read_all", "jobs", "medium", "See everybody's jobs, without their pictures."),
    Permission("jobs.control_all", "jobs", "medium", "Interrupt, skip and cancel everybody's jobs."),
    Permission("pictures.read", "pictures", "low", "See and download one's own pictures."),
    Permission("assets.upload", "pictures", "low", "Upload pictures to work on."),
    Permission("models.read", "models", "low", "See which models there are."),
    Permission("models.upload", "models", "medium", "Upload and import models of one's own."),
    Permission("models.manage", "models", "high", "Import, rename and remove everybody's models."),
    Permission("styles.read", "styles", "low", "See one's own prompt styles and the studio's."),
    Permission("styles.change", "styles", "low", "Keep prompt styles of one's own."),
    Permission("styles.manage_studio", "styles", "medium", "Change the prompt styles that everybody sees."),
    Permission("endpoints.read", "endpoints", "low", "See the endpoints and what they are doing."),
    Permission("endpoints.manage", "endpoints", "high", "Create, change and delete endpoints."),
    Permission("options.read", "studio", "low", "Read the studio's options."),
    Permission("portal.view", "studio", "medium", "See the portal's overview."),
    Permission("users.manage", "studio", "high", "Create users, set roles and passwords, disable accounts."),
    Permission("roles.manage", "studio", "high", "Make roles of the studio's own, change and remove them."),
    Permission("teams.manage", "studio", "medium", "Make teams, and say who belongs to them."),
    Permission("access.manage", "studio", "high", "Say who may use which endpoint and which model."),
    Permission("quotas.manage", "studio", "medium", "Say how much each may use."),
    Permission("settings.manage", "studio", "medium", "Set and lock settings for everybody and for teams."),
    Permission("sharing.own", "sharing", "low", "Share one's own pictures, models and styles."),
    Permission("sharing.manage", "sharing", "high", "Say who sees what belongs to others or to the studio."),
    Permission("audit.read", "studio", "high", "Read the audit trail."),
)

PERMISSIONS: dict[str, Permission] = {each.id: each for each in REGISTRY}

ADMIN = "admin"
DESIGNER = "designer"

ROLES: dict[str, frozenset[str]] = {
    ADMIN: frozenset(PERMISSIONS),
    DESIGNER: frozenset(
        (
            "account.read",
            "account.change",
            "account.keys",
            "jobs.submit",
            "jobs.read",
            "jobs.control",
            "pictures.read",
            "assets.upload",
            "models.read",
            "styles.read",
            "styles.change",
            "sharing.own",
            "endpoints.read",
            "options.read",
        )
    ),
}
"""What each built-in role may do. The studio's own roles stand in its database."""


def main_role(roles: Collection[str]) -> str:
    """The role by which somebody is called who may hold several: `admin` before every other."""
    return ADMIN if ADMIN in roles else ", ".join(sorted(roles)) or "nobody"
