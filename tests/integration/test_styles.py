"""Prompt styles, on SQLite and on PostgreSQL: whose they are, who sees them, and what a request makes of
them.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError

from atelier.contract import keys
from atelier.contract.errors import Conflict, InvalidRequest, LimitExceeded, NotFound
from atelier.contract.models import Catalogue
from atelier.stylefile import PromptStyle
from portal.db.base import new_id
from portal.db.identity import User
from portal.db.styles import Style
from portal.services import audit
from portal.services import styles as styles_service
from portal.services.callers import Caller
from portal.services.styles import Scope, Styles
from tests.jobs_studio import Studio

TWO = "name,prompt,negative_prompt\nfog,in fog,\nsun,{prompt} in the sun,night\n"


@pytest.fixture
def studio(studio_url: str, tmp_path: Path) -> Iterator[Studio]:
    made = Studio(studio_url, tmp_path)
    yield made
    made.close()


@pytest.fixture
def ann(studio: Studio) -> Caller:
    return studio.user("ann")


@pytest.fixture
def bob(studio: Studio) -> Caller:
    return studio.user("bob")


@pytest.fixture
def kept(studio: Studio) -> Styles:
    return studio.services.styles


def names(kept: Styles, actor: audit.Actor, scope: Scope | None = None) -> list[tuple[str, str]]:
    return [(view.name, view.scope.value) for view in kept.listed(actor, scope)]


def own(kept: Styles, caller: Caller, name: str, prompt: str = "", negative: str = "") -> None:
    kept.save(caller, Scope.OWN, PromptStyle(name, prompt, negative))


def shared(kept: Styles, name: str, prompt: str = "", negative: str = "") -> None:
    kept.save(audit.SYSTEM, Scope.STUDIO, PromptStyle(name, prompt, negative))


# --- Whose they are


def test_styles_keep_their_order_and_a_replaced_one_its_place(kept: Styles, ann: Caller) -> None:
    for name in ("wrap", "plain", "Plain"):
        own(kept, ann, name, "first")
    own(kept, ann, "wrap", "second", "less")
    found = kept.listed(ann)
    assert [(view.name, view.prompt, view.negative_prompt) for view in found] == [
        ("wrap", "second", "less"),
        ("plain", "first", ""),
        ("Plain", "first", ""),
    ]


def test_an_own_style_is_seen_and_changed_by_its_owner_alone(kept: Styles, ann: Caller, bob: Caller) -> None:
    own(kept, ann, "mine", "ann's")
    assert names(kept, bob) == []
    with pytest.raises(NotFound):
        kept.delete(bob, Scope.OWN, "mine")
    own(kept, bob, "mine", "bob's")
    kept.delete(bob, Scope.OWN, "mine")
    assert [view.prompt for view in kept.listed(ann)] == ["ann's"]


def test_an_own_style_hides_the_studios_until_it_is_gone(kept: Styles, ann: Caller, bob: Caller) -> None:
    shared(kept, "wrap", "studio's")
    shared(kept, "plain", "studio's")
    own(kept, ann, "wrap", "ann's")
    assert names(kept, ann) == [("wrap", "own"), ("plain", "studio")]
    assert names(kept, ann, Scope.STUDIO) == names(kept, bob) == [("wrap", "studio"), ("plain", "studio")]
    assert names(kept, ann, Scope.OWN) == [("wrap", "own")]
    kept.delete(ann, Scope.OWN, "wrap")
    assert [view.prompt for view in kept.listed(ann)] == ["studio's", "studio's"]


def test_the_database_itself_takes_a_name_once_from_each_owner(studio: Studio, ann: Caller) -> None:
    def insert(owner: str | None) -> None:
        row = Style(
            id=new_id(), owner_id=owner, name="x", prompt="", negative_prompt="", position=0, created=0.0
        )
        with studio.database.session() as session:
            session.add(row)

    for owner in (None, ann.user_id):
        insert(owner)
        with pytest.raises(IntegrityError):
            insert(owner)


def test_two_who_make_one_style_at_once_leave_one(studio: Studio, kept: Styles, ann: Caller) -> None:
    together = threading.Barrier(4)

    def save(number: int) -> None:
        together.wait(60)
        own(kept, ann, "same", str(number))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(save, range(4)))
    with studio.database.reading() as session:
        count = session.scalar(select(func.count()).select_from(Style))
    assert count == 1


def test_of_two_administrators_who_make_one_style_at_once_the_later_is_told(
    postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    studio = Studio(postgres_url, tmp_path)
    kept = studio.services.styles
    made: list[str] = []

    def overtaken() -> str:
        """An id; the first time only after the other administrator has come before."""
        made.append("")
        if len(made) == 1:
            shared(kept, "same", "faster")
        return new_id()

    monkeypatch.setattr(styles_service, "new_id", overtaken)
    try:
        with pytest.raises(Conflict, match="again"):
            shared(kept, "same", "slower")
        assert [view.prompt for view in kept.listed(audit.SYSTEM)] == ["faster"]
    finally:
        studio.close()


def test_a_users_styles_go_with_the_user(studio: Studio, kept: Styles, ann: Caller) -> None:
    own(kept, ann, "mine")
    shared(kept, "ours")
    with studio.database.session() as session:
        session.delete(session.get_one(User, ann.user_id))
    with studio.database.reading() as session:
        assert session.scalars(select(Style.name)).all() == ["ours"]


def test_nobody_has_no_styles_of_their_own(kept: Styles) -> None:
    with pytest.raises(InvalidRequest):
        own(kept, audit.SYSTEM, "mine")  # type: ignore[arg-type]


# --- What may be kept


@pytest.mark.parametrize("name", ["", "   ", "x" * 201, "#note", "two\nlines", "nul\0", ".", ".."])
def test_a_name_that_could_not_be_used_is_refused(kept: Styles, ann: Caller, name: str) -> None:
    with pytest.raises(InvalidRequest):
        own(kept, ann, name)
    assert names(kept, ann) == []


def test_texts_are_kept_as_they_are_up_to_the_longest_prompt(kept: Styles, ann: Caller) -> None:
    texts = " {prompt}\r\n# <b>🎨</b> " + "x" * 19_900, "é" * 20_000
    own(kept, ann, "n" * 200, *texts)
    (view,) = kept.listed(ann)
    assert (view.prompt, view.negative_prompt) == texts
    with pytest.raises(LimitExceeded, match="20,001"):
        own(kept, ann, "longer", "", "x" * 20_001)
    with pytest.raises(InvalidRequest, match="NUL"):
        own(kept, ann, "nul", "\0")


def test_there_are_at_most_so_many_of_one_owner(kept: Styles, ann: Caller, bob: Caller) -> None:
    rows = "".join(f"style {number},p,\n" for number in range(styles_service.MAX_STYLES))
    text = "name,prompt,negative_prompt\n" + rows
    intake = kept.take_in(ann, Scope.OWN, (text + "one more,p,\n").encode())
    assert (intake.added, [row.name for row in intake.refused]) == (2_000, ["one more"])
    assert "2,000" in intake.refused[0].reason
    with pytest.raises(LimitExceeded):
        own(kept, ann, "another")
    own(kept, ann, "style 7", "changed")
    own(kept, bob, "another")
    assert len(kept.listed(ann)) == 2_000


def test_all_together_have_at_most_so_many_characters(
    kept: Styles, ann: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(styles_service, "MAX_CHARACTERS", 100)
    own(kept, ann, "a", "x" * 60, "y" * 40)
    with pytest.raises(LimitExceeded, match="100 characters"):
        own(kept, ann, "b", "z")
    own(kept, ann, "a", "x" * 99)
    own(kept, ann, "b", "z")
    monkeypatch.setattr(styles_service, "MAX_CHARACTERS", 10)
    own(kept, ann, "a", "x" * 98)
    assert len(kept.listed(ann)) == 2


# --- What requests make of them


def prompts(studio: Studio, caller: Caller, **payload: Any) -> tuple[list[tuple[str, str]], dict[str, Any]]:
    """The prompts of the parts as they are dispatched, and the info of the job."""
    job = studio.submit(caller, **payload)
    parts = [part.resolved for part in studio.parts(job)]
    return [(part["prompt"], part["negative_prompt"]) for part in parts], studio.view(caller, job).info


def test_a_request_is_made_with_the_users_own_styles_and_the_studios(
    studio: Studio, kept: Styles, ann: Caller, bob: Caller
) -> None:
    shared(kept, "wrap", "photo of {prompt}", "studio")
    shared(kept, "plain", "sharp", "")
    own(kept, ann, "wrap", "drawing of {prompt}", "ann")
    wanted = {"prompt": "a cat", "negative_prompt": "", "styles": ["wrap", "plain"]}
    assert prompts(studio, ann, **wanted)[0] == [("drawing of a cat, sharp", "ann")]
    assert prompts(studio, bob, **wanted)[0] == [("photo of a cat, sharp", "studio")]


def test_a_style_of_somebody_else_is_as_unknown_as_any(
    studio: Studio, kept: Styles, ann: Caller, bob: Caller
) -> None:
    own(kept, ann, "secret", "ann's words {prompt}")
    for name in ("secret", "nobody's"):
        made, info = prompts(studio, bob, prompt="a cat", styles=[name])
        assert made == [("a cat", "")]
        assert "ann's words" not in json.dumps(info)
        assert [each["field"] for each in info["atelier"]["ignored"]] == ["styles"]


def test_direct_callers_of_a_worker_are_told_of_the_studios_alone(
    studio: Studio, kept: Styles, ann: Caller
) -> None:
    def published() -> dict[str, tuple[str, str]]:
        return Catalogue.model_validate_json(studio.store.get(keys.catalogue("local"))).styles

    own(kept, ann, "mine", "ann's")
    shared(kept, "ours", "everybody's", "less")
    assert published() == {"ours": ("everybody's", "less")}
    kept.take_in(audit.SYSTEM, Scope.STUDIO, TWO.encode())
    assert list(published()) == ["ours", "fog", "sun"]
    kept.delete(audit.SYSTEM, Scope.STUDIO, "ours")
    assert list(published()) == ["fog", "sun"]


def test_the_peers_styles_make_the_prompts_the_peer_made(
    studio: Studio, kept: Styles, ann: Caller, golden: Path
) -> None:
    intake = kept.take_in(ann, Scope.OWN, (golden / "styles.csv").read_bytes())
    assert (intake.added, intake.replaced, intake.refused) == (2, 0, ())
    recorded = json.loads((golden / "cases" / "pnginfo-styles.json").read_text())["info"]["info"]
    lines = recorded.splitlines()
    wanted = {"prompt": "a red circle", "negative_prompt": "green", "styles": ["wrap", "plain"]}
    made, info = prompts(studio, ann, **wanted)
    assert made == [(lines[0], lines[1].removeprefix("Negative prompt: "))]
    assert made == [("photo of a red circle, bright, sharp edges", "blurry, green, dark")]
    assert info["styles"] == ["wrap", "plain"]
