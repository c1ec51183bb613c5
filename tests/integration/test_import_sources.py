"""What an import task makes of a repository, a site and an archive of old files: one order, one model in the
store, or words that say what to do.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from safetensors.torch import load_file

from atelier.contract import keys
from atelier.contract.errors import (
    AtelierError,
    InvalidRequest,
    ModelUnusable,
    NotFound,
    NotPermitted,
    PayloadTooLarge,
    TooManyRequests,
    WorkerUnavailable,
)
from atelier.contract.imports import ImportOrder, ImportOutcome, ImportProgress
from atelier.contract.models import ModelKind
from atelier.storage.filesystem import FilesystemBlobStore
from portal.adapters.local.tasks import LocalTasks
from portal.services.ports import TaskAction, TaskSpec
from portal.services.sealing import seal
from tests.integration.test_model_import import diffusers_folder
from tests.lora_bytes import LORA, OTHER, PICKLED
from tests.moto_aws import Aws
from tests.pickling import program, zipped
from tests.sites import Site, file, publish, status
from workers.tasks import importing, orders
from workers.tasks.connecting import Patience

TOKEN = "hf_a_token_that_nobody_may_see"


class Here:
    """A store and two sites, one of which is the Hub."""

    def __init__(self, folder: Path, hub: Site, web: Site) -> None:
        self.hub, self.web, self._folder = hub, web, folder
        self.store = FilesystemBlobStore(folder / "store")
        self._number = 0

    def __call__(self, source: str, kind: ModelKind = ModelKind.LORA, **order: Any) -> ImportOutcome:
        """Carry out an order for `source`."""
        self._number += 1
        place = self._folder / str(self._number)
        place.mkdir()
        given = {"hosts": ("*",), "networks": ("127.0.0.0/8",), "limit": 2**28, "seconds": 120.0, **order}
        asked = ImportOrder(source=source, kind=kind, hub=self.hub.url, **given)
        return importing.import_model(
            asked, self.store, place, orders.Telling(self.store, "task"), Patience(pause=0)
        )

    def stored(self, outcome: ImportOutcome) -> Path:
        """The file in the store."""
        found = self.store.local_path(keys.model(outcome.blob_sha256))
        assert found is not None
        return found


@pytest.fixture
def here(sites: tuple[Site, Site], tmp_path: Path) -> Here:
    for each in sites:
        each.asked.clear()
    return Here(tmp_path, *sites)


def test_one_file_of_a_repository_is_fetched_from_its_storage_and_verified(here: Here) -> None:
    publish(
        here.hub,
        "ink/brushes",
        {"README.md": b"# ink", "ink.safetensors": LORA, "ink.ckpt": PICKLED},
        cdn=here.web,
    )
    found = here("hf:ink/brushes")
    digest = hashlib.sha256(LORA).hexdigest()
    assert (found.filename, found.sha256, found.blob_sha256) == ("ink.safetensors", digest, digest)
    assert found.verified and found.revision.startswith("c0ffee")
    assert here.stored(found).read_bytes() == LORA
    assert here("hf:ink/brushes/ink.ckpt").filename == "ink.ckpt"
    assert not any("README" in path for path in here.hub.paths())
    progress = ImportProgress.model_validate_json(here.store.get(keys.task_progress("task")))
    assert progress.phase == "storing"


def test_a_diffusers_repository_is_one_checkpoint_made_of_its_best_files(here: Here, tmp_path: Path) -> None:
    publish(here.hub, "CompVis/small", published_folder(tmp_path / "published"), cdn=here.web)
    found = here("hf:CompVis/small", ModelKind.CHECKPOINT)
    assert (found.filename, found.verified) == ("small.safetensors", True)
    names = load_file(here.stored(found)).keys()
    assert any(name.startswith("model.diffusion_model.") for name in names)
    assert any(name.startswith("first_stage_model.") for name in names)
    asked = [path for path in here.hub.paths() if "/resolve/" in path]
    assert not any(
        "flax" in path or ".bin" in path or "safety" in path or "example" in path for path in asked
    )
    assert here("hf:CompVis/small", ModelKind.CHECKPOINT).sha256 == found.sha256
    with pytest.raises(InvalidRequest, match="folder"):
        here("hf:CompVis/small", ModelKind.CHECKPOINT, sha256="0" * 64)
    with pytest.raises(PayloadTooLarge):
        here("hf:CompVis/small", ModelKind.CHECKPOINT, limit=1000)


def published_folder(folder: Path) -> dict[str, bytes]:
    """A tiny SD 1 in the diffusers library's folders, with what repositories have besides."""
    diffusers_folder(folder)
    files = {str(each.relative_to(folder)): each.read_bytes() for each in folder.rglob("*") if each.is_file()}
    weights = next(path for path in files if path.startswith("unet/") and path.endswith(".safetensors"))
    return files | {
        weights.replace(".safetensors", ".bin"): b"an older form of the same",
        "unet/diffusion_flax_model.msgpack": b"flax",
        "safety_checker/model.safetensors": b"a judge",
        "example.png": b"a picture",
    }


def test_a_repository_that_is_no_single_model_offers_its_files(here: Here) -> None:
    publish(here.hub, "many/models", {"a.safetensors": LORA, "b.safetensors": OTHER, "README.md": b"#"})
    with pytest.raises(InvalidRequest, match=r"a\.safetensors, b\.safetensors") as refused:
        here("hf:many/models")
    assert refused.value.detail == {"files": ["a.safetensors", "b.safetensors"]}
    with pytest.raises(InvalidRequest, match=r"no file 'c\.safetensors'"):
        here("hf:many/models/c.safetensors")
    publish(here.hub, "no/models", {"README.md": b"#"})
    with pytest.raises(InvalidRequest, match="no model file"):
        here("hf:no/models")


def test_a_gated_repository_is_told_and_opens_to_the_right_token(here: Here) -> None:
    publish(here.hub, "gated/model", {"m.safetensors": LORA}, token=TOKEN, cdn=here.web)
    with pytest.raises(NotPermitted, match=r"is gated.*Accept the licence"):
        here("hf:gated/model")
    with pytest.raises(NotPermitted, match="has not been let in yet") as refused:
        here("hf:gated/model", token="hf_a_wrong_one", token_site=here.hub.name)
    assert refused.value.detail == {"repository": "gated/model", "reason": "GatedRepo"}
    assert here("hf:gated/model", token=TOKEN, token_site=here.hub.name).verified
    assert [headers.get("authorization") for _, headers in here.web.asked] == [None], "storage gets no token"


@pytest.mark.parametrize(
    ("code", "reason", "token", "error", "said"),
    [(401, "RepoNotFound", "", NotFound, "private"), (404, "RepoNotFound", TOKEN, NotFound, "does not see"),
     (404, "RevisionNotFound", "", NotFound, "revision"), (404, "EntryNotFound", "", NotFound, "such file"),
     (401, "", "", NotFound, "private"), (401, "", TOKEN, NotPermitted, "does not know the token"),
     (429, "", "", TooManyRequests, "some minutes"), (500, "", "", WorkerUnavailable, "later")],
)  # fmt: skip
def test_what_the_hub_refuses_is_told_in_words(
    here: Here, code: int, reason: str, token: str, error: type[AtelierError], said: str
) -> None:
    here.hub.put("/api/models/no/thing/revision/main", status(code, b"{}", X_Error_Code=reason))
    with pytest.raises(error, match=said) as refused:
        here("hf:no/thing", token=token, token_site=here.hub.name)
    assert TOKEN not in refused.value.message


@pytest.mark.parametrize(
    "told",
    [
        b"<html>",
        b"[]",
        b"{}",
        b'{"sha": "x", "siblings": [{"rfilename": "../../x"}]}',
        b'{"sha": "x", "siblings": [{"rfilename": "/etc/passwd"}]}',
        b"[" * 5000,
    ],
)
def test_a_hub_that_answers_nonsense_leads_nowhere(here: Here, told: bytes) -> None:
    here.hub.put("/api/models/odd/thing/revision/main", status(200, told))
    with pytest.raises(WorkerUnavailable, match="did not answer as the Hub does"):
        here("hf:odd/thing")


def test_what_the_repository_states_is_what_must_come(here: Here) -> None:
    publish(here.hub, "a/b", {"m.safetensors": LORA, "config.json": b"{}"})
    commit = json.loads(_told(here, "a/b"))["sha"]
    here.hub.put(f"/a/b/resolve/{commit}/m.safetensors", OTHER)
    with pytest.raises(InvalidRequest, match="sha256"):
        here("hf:a/b")
    told = json.loads(_told(here, "a/b"))
    for each in told["siblings"]:
        each.pop("lfs", None)
    here.hub.put("/api/models/a/b/revision/main", status(200, json.dumps(told).encode()))
    with pytest.raises(InvalidRequest, match="changed"):
        here("hf:a/b")
    publish(here.hub, "a/b", {"m.safetensors": LORA})
    with pytest.raises(InvalidRequest, match="has the sha256"):
        here("hf:a/b", sha256="ab" * 32)


def _told(here: Here, repository: str) -> bytes:
    return httpx.get(f"{here.hub.url}/api/models/{repository}/revision/main", trust_env=False).content


def test_a_pickle_keeps_its_identity_and_what_it_names_is_not_run(here: Here, tmp_path: Path) -> None:
    digest = hashlib.sha256(PICKLED).hexdigest()
    found = here(here.web.put("/old/style.ckpt", PICKLED), sha256=digest)
    assert found.sha256 == digest != found.blob_sha256
    assert len(load_file(here.stored(found))) == 2
    canary = tmp_path / "canary"
    evil = zipped(program(b"cposix\nsystem\n(X" + len(f"touch {canary}").to_bytes(4, "little")
                          + f"touch {canary}".encode() + b"tR."), {})  # fmt: skip
    with pytest.raises(ModelUnusable):
        here(here.web.put("/evil.ckpt", evil))
    assert not canary.exists()


@pytest.mark.parametrize(
    ("path", "data", "error"),
    [("/m.zip", LORA, ModelUnusable), ("/m", LORA, ModelUnusable), ("/m.safetensors", PICKLED, ModelUnusable),
     ("/m.safetensors", LORA[:-3], ModelUnusable), ("/m.safetensors", b"", NotFound),
     ("/m.png", LORA, ModelUnusable), ("/m.ckpt", LORA, ModelUnusable)],
)  # fmt: skip
def test_content_that_is_not_what_its_name_says_is_refused(
    here: Here, path: str, data: bytes, error: type[AtelierError]
) -> None:
    with pytest.raises(error):
        here(here.web.put(path, data))
    assert list(here.store.list("models/")) == []


@pytest.mark.parametrize(
    ("told", "called"),
    [('attachment; filename="ink wash.safetensors"', "ink wash.safetensors"),
     ("attachment; filename*=UTF-8''%C3%A9toile.safetensors", "étoile.safetensors"),
     ('attachment; filename="../../etc/cron.d/x.safetensors"', "x.safetensors"),
     ('attachment; filename="..\\\\..\\\\y.safetensors"', "y.safetensors"),
     ('attachment; filename="page.html"', "7.safetensors"), ("nonsense", "7.safetensors")],
)  # fmt: skip
def test_a_site_may_name_its_file_and_nothing_else_by_that(here: Here, told: str, called: str) -> None:
    assert (
        here(here.web.put("/download/7.safetensors", file(LORA, Content_Disposition=told))).filename == called
    )


def test_an_object_of_a_bucket_is_imported_and_verified(here: Here, aws: Aws) -> None:
    bucket, s3 = aws.bucket("theirs"), aws.client("s3")
    s3.put_object(Bucket=bucket, Key="lora/ink.safetensors", Body=LORA)
    s3.put_object(Bucket=bucket, Key="lora/old.ckpt", Body=PICKLED)
    options = {"bucket_options": {"endpoint_url": aws.url, "region": "eu-west-1"}}
    digest = hashlib.sha256(LORA).hexdigest()
    found = here(f"s3://{bucket}/lora/ink.safetensors", sha256=digest, **options)
    assert (found.filename, found.sha256, found.verified) == ("ink.safetensors", digest, True)
    assert here.stored(found).read_bytes() == LORA
    assert here(f"s3://{bucket}/lora/old.ckpt", **options).sha256 == hashlib.sha256(PICKLED).hexdigest()
    for source, order, error in (
        ("lora/none.safetensors", {}, NotFound),
        ("lora/ink.safetensors", {"sha256": "ab" * 32}, InvalidRequest),
        ("lora/ink.safetensors", {"limit": 10}, PayloadTooLarge),
    ):
        with pytest.raises(error):
            here(f"s3://{bucket}/{source}", **options, **order)
    with pytest.raises(InvalidRequest, match="letters, digits"):
        here(f"s3://{bucket}/a b.safetensors", **options)


def test_a_real_task_reads_a_bucket_with_the_portals_own_credentials(
    here: Here, aws: Aws, tmp_path: Path
) -> None:
    bucket = aws.bucket("theirs")
    aws.client("s3").put_object(Bucket=bucket, Key="ink.safetensors", Body=LORA)
    order = ImportOrder(
        source=f"s3://{bucket}/ink.safetensors",
        kind=ModelKind.LORA,
        hub=here.hub.url,
        limit=2**20,
        seconds=60,
        hosts=(),
        bucket_options={"endpoint_url": aws.url},
    )
    blob, key = "imports/one/1", bytes(range(32))
    here.store.put(blob, seal(key, order.model_dump_json().encode(), blob))
    tasks = LocalTasks(here.store, (tmp_path / "store").as_uri(), tmp_path / "data")
    ticket = tasks.start(TaskSpec(TaskAction.IMPORT, f"{blob}#{key.hex()}", "import", "lora"))
    status = tasks.describe(ticket, wait=120)
    assert status.error is None, (status.error, tasks.logs(ticket))
    assert here.stored(ImportOutcome.model_validate(status.outcome)).read_bytes() == LORA
    assert list(here.store.list("imports/")) == []
    tasks.close()


def test_an_order_opens_once_and_to_its_own_key_alone(here: Here) -> None:
    order = ImportOrder(
        source="hf:a/b", kind=ModelKind.LORA, hub="https://x", limit=1, seconds=1, hosts=(), token=TOKEN
    )
    key, blob = bytes(range(32)), "imports/abc/1"
    sealed = seal(key, order.model_dump_json().encode(), blob)
    assert TOKEN.encode() not in sealed and TOKEN not in repr(order)
    here.store.put(blob, sealed)
    assert orders.opened(here.store, f"{blob}#{key.hex()}") == order
    with pytest.raises(NotFound):
        orders.opened(here.store, f"{blob}#{key.hex()}")
    for changed, with_key in ((sealed, bytes(32)), (sealed[:-1] + b"x", key), (b"", key), (sealed, b"short")):
        here.store.put(blob, changed)
        with pytest.raises(InvalidRequest, match="cannot be opened"):
            orders.opened(here.store, f"{blob}#{with_key.hex()}")
    here.store.put("imports/abc/2", sealed)
    with pytest.raises(InvalidRequest):
        orders.opened(here.store, f"imports/abc/2#{key.hex()}")
