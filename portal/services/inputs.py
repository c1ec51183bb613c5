"""Input pictures: uploaded, or out of a request's text; checked, stored once for each user, and named by ids
that only their owner can use.
"""

from __future__ import annotations

import hashlib
import io
import threading
import warnings
from dataclasses import dataclass

from PIL import Image

from atelier import inputs
from atelier.contract import keys
from atelier.contract.errors import InvalidRequest, NotFound
from atelier.storage.base import BlobStore
from portal.services.callers import Caller

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "AVIF", "BMP")
MOST_PIXELS = 16 * 2**20
_DECODING = threading.BoundedSemaphore(2)
"""So many pictures have their pixels in memory at once, whoever sends how many."""


@dataclass(frozen=True)
class Input:
    """A stored input. Sides in pixels, `size` in bytes."""

    id: str
    width: int
    height: int
    size: int
    media_type: str


class Inputs:
    """Stores inputs. One that no job names is removed by the sweep of what belongs to nobody."""

    def __init__(self, store: BlobStore) -> None:
        self._store = store

    def add(self, caller: Caller, data: bytes) -> Input:
        """Store a picture file; the same one again is the same input. Raises InvalidRequest."""
        width, height, media_type = checked(data)
        name = f"{caller.user_id}-{hashlib.sha256(data).hexdigest()}"
        if self._store.stat(keys.asset(name)) is None:
            self._store.put(keys.asset(name), data, content_type=media_type)
        return Input(name, width, height, len(data), media_type)

    def keep(self, caller: Caller, text: str) -> str:
        """The id of a picture given as base64, as a data URL, or by the id of an upload. Raises ValueError
        with a sentence.
        """
        if inputs.is_id(text):
            self._own(caller, text)
            return text
        try:
            return self.add(caller, inputs.decoded(text)).id
        except InvalidRequest as error:
            raise ValueError(error.message.rstrip(".")) from error

    def _own(self, caller: Caller, name: str) -> None:
        if not name.startswith(f"{caller.user_id}-") or self._store.stat(keys.asset(name)) is None:
            raise ValueError("there is no uploaded picture of that id; upload it again")

    def read(self, caller: Caller, name: str) -> tuple[bytes, str]:
        """The stored bytes of an own input, and their media type. Raises NotFound."""
        try:
            if not inputs.is_id(name):
                raise ValueError
            self._own(caller, name)
            data = self._store.get(keys.asset(name))
        except (ValueError, NotFound):
            raise NotFound("There is no such input.") from None
        return data, checked(data)[2]


def checked(data: bytes) -> tuple[int, int, str]:
    """(width, height, media type) of a picture file that can be read whole. Raises InvalidRequest."""
    try:
        with warnings.catch_warnings(), _DECODING:
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data), formats=FORMATS) as picture:
                width, height = picture.size
                if not 0 < width * height <= MOST_PIXELS:
                    raise InvalidRequest(
                        f"This picture has {width:,} x {height:,} pixels; an input may have {MOST_PIXELS:,}."
                    )
                inputs.check_sides(width, height)
                picture.load()
                return width, height, Image.MIME[picture.format or "PNG"]
    except InvalidRequest:
        raise
    except Exception as error:  # Pillow's readers raise anything at all for damaged files
        raise InvalidRequest(
            "This is no picture that can be read. PNG, JPEG, WebP, AVIF, GIF and BMP files can, "
            "if they are whole."
        ) from error
