"""A file from another bucket onto this machine's disk."""

from __future__ import annotations

import hashlib
from pathlib import Path

from atelier.contract.errors import InvalidRequest, NotFound, StorageFailed
from atelier.contract.imports import ImportOrder
from atelier.modelsource import BucketSource
from atelier.storage.base import BlobStore, checked_key
from workers.tasks.fetching import CHUNK, Fetched, Tell, check_room, too_large, write


def fetch_object(
    bucket: BlobStore, source: BucketSource, path: Path, tell: Tell, order: ImportOrder
) -> Fetched:
    """The object, written to the new file `path`. Raises NotFound, InvalidRequest for another file than the
    one that was ordered, PayloadTooLarge, StorageFull, StorageFailed.
    """
    sha256 = order.sha256
    try:
        checked_key(source.key)
    except ValueError as error:
        raise InvalidRequest(
            f"{source} cannot be named here: a key has letters, digits, / and . _ @ = + - alone."
        ) from error
    there = bucket.stat(source.key)
    if there is None:
        raise NotFound(f"There is no object {source}, or the studio's role may not read it.")
    if there.size > order.limit:
        raise too_large(there.size, order.limit, order.limited_by)
    check_room(path.parent, 2 * there.size)
    digest, count = hashlib.sha256(), 0
    with bucket.open(source.key) as stored, path.open("xb") as out:
        while chunk := stored.read(CHUNK):
            digest.update(chunk)
            count += len(chunk)
            write(out, chunk)
            tell(count, there.size)
    if count != there.size:
        raise StorageFailed(f"{source} was replaced while it was read. Import it again.")
    found = digest.hexdigest()
    if sha256 and found != sha256.lower():
        raise InvalidRequest(
            f"{source} has the sha256 {found}, not the one that was given ({sha256}). It was thrown away.",
            detail={"sha256": found, "expected": sha256},
        )
    return Fetched(path, count, found, source.filename, bool(sha256))
