"""Log lines: their ids, their forms, and what never stands in them."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import BaseModel, ValidationError

from atelier import logs, redaction

LOG = logging.getLogger("tests.logs")


class Kept(logging.Handler):
    """What a formatter makes of records."""

    def __init__(self, formatter: logging.Formatter) -> None:
        super().__init__()
        self.setFormatter(formatter)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))


@pytest.fixture
def kept() -> Iterator[Kept]:
    yield from _kept(logs.JsonLines("portal"))


@pytest.fixture
def shown() -> Iterator[Kept]:
    yield from _kept(logs.TextLines())


def _kept(formatter: logging.Formatter) -> Iterator[Kept]:
    handler, before = Kept(formatter), LOG.level
    LOG.addHandler(handler)
    LOG.setLevel(logging.DEBUG)
    yield handler
    LOG.removeHandler(handler)
    LOG.setLevel(before)


def last(kept: Kept) -> dict[str, object]:
    assert "\n" not in kept.lines[-1]
    found = json.loads(kept.lines[-1])
    assert isinstance(found, dict)
    return found


def test_a_line_is_one_object_with_the_ids_of_what_it_belongs_to(kept: Kept) -> None:
    with logs.bound(request_id="r" * 16):
        with logs.bound(job_id="j1", part_id="p1", attempt=2):
            LOG.warning("it took %d s", 3, extra={"endpoint": "local"})
        inner = last(kept)
        LOG.info("after")
    assert inner["message"] == "it took 3 s" and inner["level"] == "warning" and inner["process"] == "portal"
    assert (inner["request_id"], inner["job_id"], inner["part_id"], inner["attempt"]) == (
        "r" * 16,
        "j1",
        "p1",
        2,
    )
    assert inner["endpoint"] == "local" and str(inner["at"]).endswith("+00:00")
    assert "job_id" not in last(kept)
    LOG.info("outside")
    assert "request_id" not in last(kept)


def test_what_is_noted_in_a_thread_holds_for_the_rest_of_the_request(kept: Kept) -> None:
    with logs.bound(request_id="12345678"):
        thread = threading.Thread(target=logs.carried(logs.note), kwargs={"user_id": "u1"})
        thread.start()
        thread.join()
        LOG.info("done")
    assert last(kept)["user_id"] == "u1"
    logs.note(user_id="nobody asked")
    LOG.info("outside")
    assert "user_id" not in last(kept)


def test_nothing_somebody_typed_begins_a_line_of_its_own(kept: Kept, shown: Kept) -> None:
    name = 'x\n{"level": "info"}\r\x1b[2K\u2028\u202eY\x85Z'
    typed = f"{name}\n2026-01-01 00:00:00 INFO portal.access: forged"
    try:
        raise ValueError(typed)
    except ValueError:
        with logs.bound(user_id=name):
            LOG.exception("a model named %s", name, extra={"endpoint": name})
    assert name in str(last(kept)["message"]) and kept.lines[-1].isascii()
    lines = shown.lines[-1].splitlines()
    assert all(line.startswith("  | ") for line in lines[1:]) and len(lines) > 3
    assert all(each.isprintable() for line in lines for each in line)
    assert sum("forged" in line for line in lines) == 1


SECRETS = (
    "Authorization: Bearer abc.def-123456",
    "authorization='Basic YW5uOnBhc3N3b3Jk'",
    "the key atl_Zm9vYmFyYmF6cXV4LTAxMjM0NTY3ODk_abcdefg was refused",
    "token eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl is old",
    "Cookie: __Host-atelier=abc123456; theme=dark",
    "{'set-cookie': 'atelier=abc123456; HttpOnly'}",
    "postgresql://atelier:abc123456@db/atelier",
    "https://bucket/x?X-Amz-Signature=abc123456&X-Amz-Credential=abc123456",
    '{"password": "abc123456 with \\" and words"}',
    "new_password=abc123456&x=1",
    "ATELIER_JOB_KEY=abc123456",
    "invitation Q7vJ3l0aXn2eR5tYu8iOpA1sD4fGh6jK9lZ_xCvB-n0 sent",
    '{"prompt": "abc123456 under the \\"sea\\"", "negative_prompt": "def-123456"}',
    "payload {'prompt': ['abc123456', 'two'], 'steps': 3}",
)


@pytest.mark.parametrize("text", SECRETS)
def test_what_looks_like_a_secret_is_hidden(text: str) -> None:
    said = redaction.redacted(text)
    assert redaction.HIDDEN in said
    for word in ("abc", "def", "YW5u", "atl_", "eyJ", "Q7vJ", "c2ln", "sea", "words"):
        assert word not in said, said


@pytest.mark.parametrize(
    "text",
    (
        "GET /api/v1/jobs/{job_id} 200",
        "job 0199f0c2a5b71c2d3e4f5a6b7c8d9e0f1a2b3c accepted",
        "checking v1-5-pruned.safetensors (4265146304 bytes) in place",
        "sha256 " + "0123456789abcdef" * 4,
        "http://127.0.0.1:8000/portal/",
    ),
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert redaction.redacted(text) == text


def test_values_that_are_known_to_be_secret_are_hidden_wherever_they_stand(kept: Kept) -> None:
    redaction.hide("swordfish-of-this-test", None, "abc")
    LOG.info("it is %s, and abc", "swordfish-of-this-test")
    assert last(kept)["message"] == "it is ***, and abc"
    with logs.unsaid("a heron at dawn"):
        try:
            raise KeyError("a heron at dawn")
        except KeyError:
            LOG.exception("failed")
    assert "heron" not in kept.lines[-1] and "KeyError" in str(last(kept)["error"])


def test_an_error_of_pydantic_does_not_quote_its_input(kept: Kept) -> None:
    class Body(BaseModel):
        steps: int

    typed = {"steps": " ".join(["a secret", "garden"])}  # a traceback shows this line as it stands here
    try:
        Body.model_validate(typed)
    except ValidationError:
        LOG.exception("failed")
    assert "secret garden" not in kept.lines[-1] and "Body" in kept.lines[-1]


def test_a_request_keeps_a_sane_id_and_gets_another_in_place_of_any_other() -> None:
    assert logs.request_id("from-the-proxy.1") == "from-the-proxy.1"
    for given in (None, "", "short", "x" * 65, "with space", "line\nbreak1", "id12345678\n", "é" * 10):
        made = logs.request_id(given)
        assert made != given and len(made) == 16


def test_a_json_line_is_legible_by_its_message_and_the_end_of_its_traceback(kept: Kept) -> None:
    try:
        raise RuntimeError("no such device")
    except RuntimeError:
        LOG.exception("the worker cannot start")
    assert logs.legible(kept.lines[-1]) == "the worker cannot start: RuntimeError: no such device"
    assert logs.legible("Segmentation fault") == "Segmentation fault"
    assert logs.legible("[1]") == "[1]"


def test_a_log_that_grows_too_large_is_put_aside_while_it_is_appended_to(tmp_path: Path) -> None:
    path = tmp_path / "portal.log"
    with path.open("ab", buffering=0) as file:
        file.write(b"one\n" * 10)
        assert not logs.put_aside(path, 100)
        file.write(b"two\n" * 100)
        assert logs.put_aside(path, 100)
        file.write(b"three\n")
    assert path.read_bytes() == b"three\n"
    assert (tmp_path / "portal.log.1").read_bytes().startswith(b"one\n")
