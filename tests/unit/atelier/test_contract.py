"""Signatures, errors, versions, routes and timelines of the wire."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atelier import extension
from atelier.contract import CONTRACT_VERSION, errors, routes, signing, timeline, understands
from atelier.contract.models import Catalogue

KEY = b"k" * 32
BODY: dict[str, Any] = {
    "task": "text-to-image",
    "resolved": {"seed": 1},
    "job": {"job": "j", "part": "p", "attempt": 1},
}


def test_a_signed_body_verifies_and_any_change_breaks_it() -> None:
    signed = signing.sign(BODY, KEY)
    assert signing.verify(signed, KEY)
    assert not signing.verify({**signed, "task": "other"}, KEY)
    assert not signing.verify({**signed, "job": {**signed["job"], "attempt": 2}}, KEY)
    assert not signing.verify({**signed, "resolved": {"seed": 2}}, KEY)
    assert not signing.verify(signed, b"x" * 32)


@pytest.mark.parametrize("job", [None, "j", {}, {"signature": None}, {"signature": ""}, {"signature": "ä"}])
def test_a_body_without_a_proper_signature_does_not_verify(job: object) -> None:
    assert not signing.verify({"task": "x", "job": job}, KEY)


def test_a_short_key_signs_and_verifies_nothing() -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        signing.sign(BODY, b"short")
    assert not signing.verify(signing.sign(BODY, KEY), b"")


@given(st.sampled_from(sorted(errors.ERRORS)), st.text(min_size=1, max_size=40))
def test_an_error_survives_the_wire(code: str, message: str) -> None:
    error = errors.ERRORS[code](message, detail={"limit": 1})
    back = errors.from_body(error.body())
    assert (type(back), back.message, back.detail) == (type(error), message, {"limit": 1})
    assert back.retryable == error.body()["retryable"]


def test_the_drawn_tree_names_every_error_with_its_code_status_and_retry() -> None:
    text = errors.__doc__ or ""
    for code, kind in errors.ERRORS.items():
        if kind is errors.AtelierError:
            continue
        row = next(line for line in text.splitlines() if f"- {kind.__name__} " in line)
        assert code in row
        assert str(kind.http_status) in row
        assert ("yes" if kind.retryable else "no") in row


def test_an_unknown_code_becomes_an_internal_error() -> None:
    assert isinstance(errors.from_body({"code": "from_the_future", "message": "m"}), errors.InternalError)


@pytest.mark.parametrize(
    ("version", "fits"),
    [(CONTRACT_VERSION, True), ("1.99", False), ("2.0", False), ("0.9", False), ("x", False), ("1", False)],
)
def test_only_this_and_older_minors_of_the_contract_are_understood(version: str, fits: bool) -> None:
    assert understands(version) is fits


@pytest.mark.parametrize(
    ("path", "owner"),
    [
        ("/portal", "portal"),
        ("/portal/login", "portal"),
        ("/api/v1/me", "portal"),
        ("/apiary", "webui"),
        ("/", "webui"),
    ],
)
def test_a_prefix_owns_whole_segments_alone(path: str, owner: str) -> None:
    assert routes.owner_of(path) == owner


def test_programs_paths_are_known() -> None:
    assert routes.for_programs("/sdapi/v1/txt2img")
    assert not routes.for_programs("/api/v1/jobs")


def test_overhead_is_what_the_engine_did_not_have() -> None:
    marks = {"accepted": 10.0, "steps": 10.5, "storing": 12.0, "visible": 12.3}
    assert timeline.overhead_seconds(marks) == pytest.approx(0.8)
    assert timeline.overhead_seconds({"accepted": 1.0}) is None


def write_extension(root: Path, name: str, manifest: str, *parts: str) -> None:
    folder = root / name
    folder.mkdir()
    (folder / "extension.toml").write_text(manifest)
    for part in parts:
        (folder / f"{part}.py").write_text("raise RuntimeError('a check never imports')\n")


def test_the_report_names_the_reason_for_each_extension_that_does_not_fit(tmp_path: Path) -> None:
    write_extension(tmp_path, "good", 'name="good"\nversion="1"\ncontract="1.0"\n', "schema")
    write_extension(tmp_path, "newer", 'name="newer"\nversion="1"\ncontract="7.0"\n', "schema")
    write_extension(tmp_path, "renamed", 'name="other"\nversion="1"\ncontract="1.0"\n', "schema")
    write_extension(tmp_path, "hollow", 'name="hollow"\nversion="1"\ncontract="1.0"\n')
    write_extension(tmp_path, "broken", "name=")
    found = {each.folder: each for each in extension.check(tmp_path)}
    assert found["good"].usable
    assert "contract 7.0" in found["newer"].reason
    assert "'other'" in found["renamed"].reason
    assert "schema" in found["hollow"].reason
    assert "extension.toml" in found["broken"].reason
    assert [name for name, each in found.items() if each.usable] == ["good"]


def test_the_hook_specification_loads_and_an_implementation_may_take_fewer_arguments() -> None:
    class Plugin:
        @extension.hookimpl
        def parse_tag(self, kind: str) -> dict[str, str] | None:
            return {"kind": kind} if kind == "lora" else None

    manager = extension.plugin_manager()
    manager.register(Plugin())
    manager.check_pending()
    assert manager.hook.parse_tag(kind="lora", arguments=["x"], catalogue=Catalogue()) == {"kind": "lora"}
    assert manager.hook.parse_tag(kind="other", arguments=[], catalogue=Catalogue()) is None
