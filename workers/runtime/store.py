"""Contract values as JSON in the blob store."""

from __future__ import annotations

from typing import TypeVar

from pydantic import BaseModel, ValidationError

from atelier.contract.errors import NotFound, StorageFailed
from atelier.storage.base import BlobStore

Value = TypeVar("Value", bound=BaseModel)


def read(store: BlobStore, key: str, kind: type[Value]) -> Value | None:
    """The value under `key`, None where there is none. Raises StorageFailed where it is not a `kind`."""
    try:
        return parse(key, store.get(key), kind)
    except NotFound:
        return None


def read_if_changed(
    store: BlobStore, key: str, kind: type[Value], etag: str | None
) -> tuple[Value, str] | None:
    """(value, etag) if there is a value with another etag than `etag`, else None."""
    found = store.get_if_changed(key, etag)
    return None if found is None else (parse(key, found[0], kind), found[1])


def write(store: BlobStore, key: str, value: BaseModel) -> None:
    """Put `value` under `key` as JSON."""
    store.put(key, value.model_dump_json().encode(), content_type="application/json")


def parse(key: str, data: bytes, kind: type[Value]) -> Value:
    """`data` as a `kind`. Raises StorageFailed, naming the key: a half-written or foreign object is the
    store's fault.
    """
    try:
        return kind.model_validate_json(data)
    except ValidationError as error:
        raise StorageFailed(
            f"{key} in the store is no {kind.__name__}: {error.errors()[0]['msg']}."
        ) from error
