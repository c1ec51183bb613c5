"""What every blob store keeps. A store of another technology runs this same class with its own fixture."""

from __future__ import annotations

import re
import threading
import uuid
from pathlib import Path

import pytest

from atelier.contract import keys
from atelier.contract.errors import InvalidRequest, NotFound, StorageFailed
from atelier.storage.base import BlobStore, checked_key
from atelier.storage.filesystem import FilesystemBlobStore
from atelier.storage.opening import open_store
from atelier.storage.s3 import Bucket, S3BlobStore
from tests.moto_aws import Aws


@pytest.fixture(params=["files", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> BlobStore:
    if request.param == "files":
        return open_store(f"file://{tmp_path}/store")
    account: Aws = request.getfixturevalue("aws")
    return S3BlobStore(Bucket("studio", f"{uuid.uuid4().hex}/", endpoint_url=account.url), account.session)


class TestBlobStore:
    def test_what_was_put_comes_back(self, store: BlobStore) -> None:
        stat = store.put("jobs/a/1.png", b"bytes")
        assert (stat.key, stat.size) == ("jobs/a/1.png", 5)
        assert store.get("jobs/a/1.png") == b"bytes"
        with store.open("jobs/a/1.png") as source:
            assert source.read(2) == b"by"

    def test_a_files_content_is_stored_whole(self, store: BlobStore, tmp_path: Path) -> None:
        (tmp_path / "large").write_bytes(b"x" * (9 * 2**20))
        assert store.put("models/large", tmp_path / "large").size == 9 * 2**20

    def test_what_is_not_there_is_not_found(self, store: BlobStore) -> None:
        assert store.stat("nothing") is None
        with pytest.raises(NotFound):
            store.get("nothing")
        with pytest.raises(NotFound):
            store.open("nothing")

    def test_a_location_names_the_value_for_good(self, store: BlobStore) -> None:
        store.put("answers/a/0.png", b"1")
        location = store.location("answers/a/0.png")
        assert re.match(r"(file://|s3://)/?\S+answers/a/0\.png\Z", location)
        with pytest.raises(ValueError, match="no blob key"):
            store.location("../secret")

    def test_deleting_twice_is_no_error(self, store: BlobStore) -> None:
        store.put("a", b"1")
        store.delete("a")
        store.delete("a")
        assert store.stat("a") is None

    def test_a_listing_holds_the_prefix_alone_in_key_order(self, store: BlobStore) -> None:
        for key in ("jobs/b/2", "jobs/a/1", "jobs/ab/3", "models/x"):
            store.put(key, b"1")
        assert [each.key for each in store.list("jobs/a")] == ["jobs/a/1", "jobs/ab/3"]
        assert [each.key for each in store.list("jobs/a/")] == ["jobs/a/1"]
        assert list(store.list("none/")) == []

    def test_a_conditional_read_answers_only_to_a_change(self, store: BlobStore) -> None:
        assert store.get_if_changed("control", None) is None
        store.put("control", b"1")
        first = store.get_if_changed("control", None)
        assert first is not None
        assert store.get_if_changed("control", first[1]) is None
        store.put("control", b"2")
        second = store.get_if_changed("control", first[1])
        assert second is not None
        assert second[0] == b"2"

    def test_a_reader_sees_the_old_value_or_the_new_one(self, store: BlobStore) -> None:
        values = [bytes([number]) * 200_000 for number in range(8)]
        store.put("shared", values[0])
        seen: list[bytes] = []
        done = threading.Event()

        def read() -> None:
            while not done.is_set():
                seen.append(store.get("shared"))

        reader = threading.Thread(target=read)
        reader.start()
        for value in values * 5:
            store.put("shared", value)
        done.set()
        reader.join(60)
        assert seen
        assert set(seen) <= set(values)

    @pytest.mark.parametrize(
        "key", ["", "/a", "a/", "a//b", "../a", "a/../b", "a\\b", "a\0", ".h", "a/.b", "ä", "x" * 901]
    )
    def test_a_key_that_could_leave_the_store_is_refused(self, store: BlobStore, key: str) -> None:
        with pytest.raises(ValueError, match="no blob key"):
            store.put(key, b"1")


def test_a_linked_file_is_read_in_place_and_survives_deletion(tmp_path: Path) -> None:
    store = FilesystemBlobStore(tmp_path / "store")
    model = tmp_path / "model.safetensors"
    model.write_bytes(b"weights")
    store.link("models/abc", model)
    assert store.local_path("models/abc") == model
    assert store.get("models/abc") == b"weights"
    assert [each.key for each in store.list("models/")] == ["models/abc"]
    store.delete("models/abc")
    assert model.exists()
    assert store.stat("models/abc") is None


def test_a_linked_file_that_went_away_reads_as_missing(tmp_path: Path) -> None:
    store = FilesystemBlobStore(tmp_path / "store")
    model = tmp_path / "model.safetensors"
    model.write_bytes(b"weights")
    store.link("models/abc", model)
    model.unlink()
    assert store.stat("models/abc") is None


def test_a_store_that_cannot_write_says_so_and_is_retryable(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("a file where the folder should be")
    with pytest.raises(StorageFailed) as caught:
        FilesystemBlobStore(tmp_path / "store").put("a", b"1")
    assert caught.value.retryable


def test_an_unknown_store_address_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="file:///path"):
        open_store("ftp://example/store")


def test_every_key_of_the_contract_is_a_key_and_ids_cannot_leave_it() -> None:
    made = [
        keys.model("a1"), keys.part_control("j", "p"), keys.endpoint_control("e"), keys.progress("j", "p", 1),
        keys.preview("j", "p", 1, 2), keys.picture("j", "p", 1, 0), keys.result("j", "p", 1),
        keys.error("j", "p", 1),
        keys.instance("e", "i"), keys.catalogue("e"), keys.asset("x"),
    ]  # fmt: skip
    assert [checked_key(key) for key in made] == made
    for bad in ("..", "a/b", "", ".", "a..b"):
        with pytest.raises(ValueError, match="blob key"):
            keys.part_control(bad, "p")
