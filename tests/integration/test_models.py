"""The registry of models, on SQLite and on PostgreSQL: what a file is, by what names it goes, what workers
are told of it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from atelier.contract import keys
from atelier.contract.errors import Conflict, ModelUnusable, NotFound
from atelier.contract.models import Catalogue, ModelKind, ModelRef
from portal.db.work import Model
from portal.services import audit
from portal.services.models import ModelFile
from tests.jobs_studio import Studio

CHECKPOINT_KEYS = {
    "model.diffusion_model.input_blocks.0.0.weight": [2, 4, 1, 1],
    "first_stage_model.decoder.conv_in.weight": [1],
    "cond_stage_model.transformer.text_model.embeddings.position_ids": [1],
}


def safetensors(path: Path, tensors: dict[str, list[int]], salt: int = 0) -> Path:
    """A safetensors file with these shapes, in F32."""
    header, end = {}, 0
    for name, shape in tensors.items():
        size = 4
        for side in shape:
            size *= side
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + bytes([salt]) * end)
    return path


@pytest.fixture
def studio(database_url: str, tmp_path: Path) -> Iterator[Studio]:
    made = Studio(database_url, tmp_path)
    with made.database.session() as session:
        session.query(Model).delete()
    yield made
    made.close()


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return safetensors(tmp_path / "dream.safetensors", CHECKPOINT_KEYS)


def register(
    studio: Studio, path: Path, kind: ModelKind = ModelKind.CHECKPOINT, *, link: bool = False
) -> ModelRef:
    return studio.work.models.register(audit.SYSTEM, ModelFile(path, kind, link=link))


def published(studio: Studio) -> Catalogue:
    return Catalogue.model_validate_json(studio.store.get(keys.catalogue("local")))


def test_a_file_is_stored_by_its_hash_and_answers_to_all_its_names(studio: Studio, checkpoint: Path) -> None:
    model = register(studio, checkpoint)
    digest = hashlib.sha256(checkpoint.read_bytes()).hexdigest()
    assert (model.sha256, model.short_hash, model.family) == (digest, digest[:10], "sd1")
    assert studio.store.get(keys.model(digest)) == checkpoint.read_bytes()
    for name in (
        "dream",
        "dream.safetensors",
        f"dream.safetensors [{digest[:10]}]",
        digest[:10],
        digest,
        "DREAM",
    ):
        assert published(studio).find(ModelKind.CHECKPOINT, name) == model


def test_the_first_checkpoint_is_the_standard_one_until_another_is_made_it(
    studio: Studio, checkpoint: Path
) -> None:
    first = register(studio, checkpoint)
    second = register(studio, safetensors(checkpoint.with_name("other.safetensors"), CHECKPOINT_KEYS, salt=1))
    assert published(studio).default_checkpoint == first.title
    studio.work.models.make_standard(audit.SYSTEM, "other")
    assert published(studio).default_checkpoint == second.title
    assert [standard for _, standard in studio.work.models.listed()] == [False, True]
    with pytest.raises(NotFound):
        studio.work.models.make_standard(audit.SYSTEM, "third")


def test_a_linked_file_is_read_where_it_lies(studio: Studio, checkpoint: Path) -> None:
    model = register(studio, checkpoint, link=True)
    assert studio.store.local_path(keys.model(model.blob_sha256)) == checkpoint.resolve()


def test_a_yaml_of_the_same_stem_becomes_the_checkpoints_configuration(
    studio: Studio, checkpoint: Path
) -> None:
    checkpoint.with_suffix(".yaml").write_text("model: {}\n")
    model = register(studio, checkpoint)
    assert model.config_sha256 == hashlib.sha256(b"model: {}\n").hexdigest()
    assert studio.store.get(keys.model(model.config_sha256)) == b"model: {}\n"


def test_the_same_file_again_is_the_same_model_and_stored_again_where_it_was_lost(
    studio: Studio, checkpoint: Path
) -> None:
    model = register(studio, checkpoint)
    assert register(studio, checkpoint) == model
    studio.store.delete(keys.model(model.blob_sha256))
    assert register(studio, checkpoint) == model
    assert studio.store.stat(keys.model(model.blob_sha256)) is not None
    assert len(studio.work.models.listed()) == 1


def test_another_file_of_a_taken_name_is_a_conflict(studio: Studio, checkpoint: Path) -> None:
    register(studio, checkpoint)
    elsewhere = checkpoint.parent / "elsewhere"
    elsewhere.mkdir()
    with pytest.raises(Conflict, match="dream"):
        register(studio, safetensors(elsewhere / "dream.safetensors", CHECKPOINT_KEYS, salt=1))
    assert (
        register(studio, safetensors(elsewhere / "dream.safetensors", {"a": [1]}), ModelKind.VAE).name
        == "dream"
    )


def test_what_is_no_safetensors_checkpoint_is_refused_and_leaves_nothing(
    studio: Studio, tmp_path: Path
) -> None:
    pickled, lora = tmp_path / "old.ckpt", safetensors(tmp_path / "lora.safetensors", {"lora_up": [1]})
    pickled.write_bytes(b"\x80\x02.")
    cut = safetensors(tmp_path / "cut.safetensors", CHECKPOINT_KEYS)
    cut.write_bytes(cut.read_bytes()[:-3])
    for path, said in ((pickled, "old.ckpt is damaged"), (lora, "is a LoRA"), (cut, "cut off")):
        with pytest.raises(ModelUnusable, match=said):
            register(studio, path)
    with pytest.raises(NotFound):
        register(studio, tmp_path / "absent.safetensors")
    assert studio.work.models.listed() == []


def test_a_new_endpoint_has_its_catalogue_from_the_start(studio: Studio, checkpoint: Path) -> None:
    from portal.services.ports import EndpointSpec

    model = register(studio, checkpoint)
    studio.work.endpoints.create(audit.SYSTEM, EndpointSpec("second"))
    content = studio.store.get(keys.catalogue("second"))
    assert Catalogue.model_validate_json(content).models == (model,)


def test_the_same_file_with_another_configuration_and_name_is_another_model(
    studio: Studio, checkpoint: Path
) -> None:
    plain = register(studio, checkpoint)
    again = checkpoint.with_name("velocity.safetensors")
    again.write_bytes(checkpoint.read_bytes())
    again.with_suffix(".yaml").write_text('model: {params: {parameterization: "v"}}\n')
    other = register(studio, again)
    assert (other.sha256, other.name) == (plain.sha256, "velocity")
    assert other.config_sha256 is not None and plain.config_sha256 is None
    assert published(studio).find(ModelKind.CHECKPOINT, "velocity") == other
    studio.work.models.make_standard(audit.SYSTEM, "velocity")
    assert [standard for _, standard in studio.work.models.listed()] == [False, True]
