"""What a hostile request, picture or model file does to the portal over HTTP: it is told, in a sentence, and
nothing else happens to anybody.
"""

from __future__ import annotations

import base64
import json
import os
import struct
import zlib
from pathlib import Path

import pytest

from atelier import exif
from atelier.contract.errors import InvalidRequest
from atelier.resolve import parse_payload
from portal.services import audit
from tests.integration.test_models import CHECKPOINT_KEYS, safetensors
from tests.integration.test_models_http import People, network, people
from tests.jobs_studio import PAYLOAD

__all__ = ["people"]
DEEP = "[" * 300 + "]" * 300
HUGE = "1" + "0" * 400


@pytest.fixture
def drawing(people: People, tmp_path: Path) -> People:
    """The people before a portal that has a checkpoint."""
    path = safetensors(tmp_path / "dream.safetensors", CHECKPOINT_KEYS)
    assert people.upload(path, kind="checkpoint").status_code == 201
    return people


def accepted(people: People, body: str) -> tuple[int, str]:
    """(status, sentence) of a job's body as ann sends it."""
    headers = people.headers["ann"] | {"content-type": "application/json"}
    answer = people.client.post("/api/v1/jobs", content=body.encode(), headers=headers)
    return answer.status_code, (answer.json().get("error") or {}).get("message", "")


def test_a_number_beyond_every_float_is_refused_by_its_limit(drawing: People) -> None:
    for field in ("seed", "steps", "width", "batch_size", "hr_resize_x", "hr_second_pass_steps"):
        payload = PAYLOAD | {"enable_hr": True, "denoising_strength": 0.5, field: int(HUGE)}
        status, said = accepted(drawing, json.dumps({"txt2img_payload": payload}))
        assert (status, "401 digits" in said, field in said) == (422, True, True), said


def test_what_no_database_can_hold_is_refused_in_a_sentence(people: People) -> None:
    for body, said in (
        ('{"txt2img_payload": {"override_settings": {"a": ' + DEEP + "}}}", "nested deeper"),
        ('{"txt2img_payload": {"comments": {"a": NaN}}}', "NaN"),
        ('{"txt2img_payload": {"unknown": -Infinity}}', "Infinity"),
        ('{"txt2img_payload": {"prompt": "a\\u0000b"}}', "character NUL"),
        ('{"txt2img_payload": {"prompt": "\\ud800"}}', "half a character"),
        ('{"txt2img_payload": ', "no JSON, from its character 20 on"),
    ):
        status, message = accepted(people, body)
        assert (status, said in message) == (422, True), (status, message)


def test_a_workers_own_body_is_not_nested_without_end_either() -> None:
    with pytest.raises(InvalidRequest, match="nested deeper"):
        parse_payload({"comments": {"a": json.loads(DEEP)}})


def test_text_about_the_character_nul_is_text(drawing: People) -> None:
    status, said = accepted(
        drawing, json.dumps({"txt2img_payload": PAYLOAD | {"prompt": "a \\u0000 circle"}})
    )
    assert status == 202, said


def test_an_exif_block_of_folders_that_name_each_other_is_read_in_one_pass() -> None:
    reads = 0

    class Counted(bytes):
        """A block that counts the folders looked at."""

        def __len__(self) -> int:
            nonlocal reads
            reads += 1
            return super().__len__()

        def removeprefix(self, _prefix: bytes, /) -> Counted:
            return self

    entry = struct.pack(">HHII", 0x8769, 4, 1, 8)
    block = Counted(b"MM\0*" + struct.pack(">I", 8) + struct.pack(">H", 2_000) + entry * 2_000)
    assert exif.user_comment(block) == ""
    assert reads < 5_000, "each entry once, not each for each"


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def test_a_picture_with_numbers_beyond_every_float_in_its_text_is_read(people: People) -> None:
    told = b'{"steps": ' + b"9" * 4000 + b', "scale": 1e999, "seed": 5}'
    texts = (b"Software\0NovelAI", b"Description\0a circle", b"Comment\0" + told)
    header = struct.pack(">IIBBBBB", 8, 8, 8, 2, 0, 0, 0)
    chunks = [chunk(b"IHDR", header), *(chunk(b"tEXt", text) for text in texts), chunk(b"IEND", b"")]
    sent = base64.b64encode(b"\x89PNG\r\n\x1a\n" + b"".join(chunks)).decode()
    answer = people.client.post("/api/v1/infotext", json={"image": sent}, headers=people.headers["ann"])
    assert answer.status_code == 200
    assert answer.json()["infotext"] == (
        "a circle\nSampler: Euler a, Seed: 5, Size: 8x8, Clip skip: 2, ENSD: 31337"
    )


def test_hostile_metadata_break_no_list_and_no_card(people: People, tmp_path: Path) -> None:
    client, headers = people.client, people.headers["ann"]
    for number, metadata in enumerate(
        (
            {"ss_tag_frequency": "[" * 100_000},
            {"ss_tag_frequency": json.dumps({"a": {"b": int("9" * 4000)}})},
            {"ssmd_cover_images": "[" * 100_000},
            {"note": "\ud800", "\udfff": "x"},
            {"ss_output_name": "a\ud800b"},
            {"ss_output_name": "a\0b"},
        )
    ):
        made = people.upload(network(tmp_path / "cat.safetensors", metadata, salt=number))
        assert made.status_code == 201, made.text
        assert people("ann", "GET", f"/{made.json()['id']}").json()["suggested_words"] == []
        assert [each["name"] for each in client.get("/sdapi/v1/loras", headers=headers).json()] == ["cat"]
        card = {"page": "lora", "item": "cat"}
        assert client.get("/sd_extra_networks/metadata", params=card, headers=headers).status_code == 200
        cover = client.get("/sd_extra_networks/cover-images", params=card, headers=headers)
        assert cover.status_code == 404
        assert people("root", "DELETE", f"/{made.json()['id']}").status_code == 204


def test_an_alias_that_would_end_its_tag_is_none(people: People, tmp_path: Path) -> None:
    hostile = {"ss_output_name": "cat:1> <lora:dog:5>"}
    made = people.upload(network(tmp_path / "cat.safetensors", hostile)).json()
    assert (made["alias"], made["prompt_name"]) == (None, "cat")


def test_a_file_name_longer_than_a_file_system_takes_is_refused(people: People, tmp_path: Path) -> None:
    path = network(tmp_path / "cat.safetensors")
    answer = people.upload(path, filename="\U0001f600" * 100 + ".safetensors", name="cat")
    assert answer.status_code == 422
    assert "250 bytes" in answer.json()["error"]["message"]
    assert people.upload(path, filename="\U0001f600.safetensors").json()["name"] == "\U0001f600"


def test_a_models_name_is_one_line(people: People, tmp_path: Path) -> None:
    made = people.upload(network(tmp_path / "cat.safetensors")).json()
    for name in ("two\r\nlines", "nul\0", "a\u2028b", "esc\x1b[2J"):
        answer = people("root", "PATCH", f"/{made['id']}", json={"name": name})
        assert answer.status_code == 422
        assert "one line" in answer.json()["error"]["message"]


def test_notes_beyond_their_limits_are_refused_in_plain_words(people: People, tmp_path: Path) -> None:
    made = people.upload(network(tmp_path / "cat.safetensors")).json()
    answer = people("root", "PATCH", f"/{made['id']}", json={"preferred_weight": 11})
    assert answer.json()["error"]["message"] == (
        "These notes cannot be kept. preferred_weight: Input should be less than or equal to 10."
    )


def test_one_bad_file_in_a_linked_folder_keeps_no_other_out(people: People, tmp_path: Path) -> None:
    folder = tmp_path / "Lora"
    folder.mkdir()
    network(folder / "good.safetensors")
    network(folder / "nested.safetensors", salt=1)
    (folder / "nested.json").write_text("[" * 100_000)
    network(folder / "two\nlines.safetensors", salt=2)
    network(folder / "x.safetensors", salt=3).rename(
        os.fsdecode(os.fsencode(folder) + b"/latin-\xe4.safetensors")
    )
    people.studio.work.folders.remember(audit.SYSTEM, folder, None)
    for _ in range(2):
        answer = people("ann", "POST", "/refresh")
        assert answer.status_code == 200, answer.text
        assert list(answer.json()["refused"]) == ["latin-?.safetensors", "two\nlines.safetensors"]
        assert all("Rename it" in reason for reason in answer.json()["refused"].values())
    assert [each["name"] for each in people("ann", "GET", "").json()] == ["good", "nested"]


def test_a_network_without_any_tensor_is_refused(people: People, tmp_path: Path) -> None:
    path = tmp_path / "empty.safetensors"
    path.write_bytes((2).to_bytes(8, "little") + b"{}")
    answer = people.upload(path)
    assert answer.status_code == 422
    assert "empty.safetensors holds no tensors" in answer.json()["error"]["message"]
