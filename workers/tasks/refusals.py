"""What a site's refusal means, in words that say what to do."""

from __future__ import annotations

from collections.abc import Mapping

from atelier.contract.errors import (
    AtelierError,
    InvalidRequest,
    NotFound,
    NotPermitted,
    TooManyRequests,
    WorkerUnavailable,
)
from atelier.outbound import Address


def refusal(
    address: Address, status: int, headers: Mapping[str, str], with_token: bool, repository: str = ""
) -> AtelierError:
    """The error for an answer that is no file. The Hub says why in `X-Error-Code`; `repository` is the one
    that was asked for.
    """
    site, code = address.site, headers.get("x-error-code", "")
    if repository:
        found = _of_the_hub(site, repository, status, code, with_token)
        if found is not None:
            return found
    if status in (401, 403):
        token = "refuses the token" if with_token else "wants to know who asks"
        return NotPermitted(
            f"{site} {token} (status {status}). Give a token whose account may read {address.shown}."
        )
    if status in (404, 410):
        return NotFound(f"{site} has nothing at {address.shown} (status {status}). Check the address.")
    if status == 429:
        return TooManyRequests(f"{site} has had too many requests from here. Try again in some minutes.")
    if status >= 500:
        return WorkerUnavailable(f"{site} fails itself (status {status}). Try again later.")
    return InvalidRequest(f"{site} answers with status {status} instead of a file.")


def _of_the_hub(site: str, repository: str, status: int, code: str, with_token: bool) -> AtelierError | None:
    page = f"https://{site}/{repository}"
    detail = {"repository": repository, "reason": code}
    if code == "GatedRepo":
        how = (
            "The token's account has not been let in yet: accept the licence there with that account"
            if with_token
            else "Accept the licence there, then give a token of that account (portal, Models, Tokens)"
        )
        told = f"The repository {repository} is gated: its owners let in who accepts their licence at {page}."
        return NotPermitted(f"{told} {how}, and import again.", detail=detail)
    if code == "RepoNotFound" or (status == 401 and not with_token):
        hidden = (
            "the token's account does not see it"
            if with_token
            else "it is private: then a token is needed of an account that sees it"
        )
        return NotFound(
            f"{site} has no repository {repository}, or {hidden}. Check the spelling.", detail=detail
        )
    if code == "RevisionNotFound":
        return NotFound(f"The repository {repository} has no such revision. See {page}.", detail=detail)
    if code == "EntryNotFound":
        return NotFound(f"The repository {repository} has no such file. See {page}/tree/main.", detail=detail)
    if status == 401:
        return NotPermitted(
            f"{site} does not know the token: it was mistyped, or revoked. Keep a new one and import again.",
            detail=detail,
        )
    return None
