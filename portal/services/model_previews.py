"""Preview pictures of models: whatever comes in is decoded within limits and stored as a small WebP of our
own.
"""

from __future__ import annotations

import hashlib
import io
import threading
import warnings

from PIL import Image, ImageOps

from atelier.contract import keys
from atelier.contract.errors import InvalidRequest
from atelier.storage.base import BlobStore

MEDIA_TYPE = "image/webp"
LARGEST_SIDE = 768
"""Of a stored preview, in pixels: a card shows some 200 of them, a dialog the rest."""
MAX_BYTES = 20 * 2**20
MAX_PIXELS = 40_000_000
_MOST = f"{MAX_PIXELS:,} at most"
_DECODING = threading.BoundedSemaphore(2)
"""So many pictures have their pixels in memory at once, whoever sends how many."""
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "AVIF")


def encoded(data: bytes) -> bytes:
    """The first frame of a picture file as WebP, at most LARGEST_SIDE wide and high, without any metadata.

    Raises InvalidRequest for anything else and for what is beyond the limits.
    """
    with _DECODING:
        shown = _decoded(data)
        shown.thumbnail((LARGEST_SIDE, LARGEST_SIDE), Image.Resampling.LANCZOS)
    out = io.BytesIO()
    shown.save(out, "WEBP", quality=86, method=4)
    return out.getvalue()


def _decoded(data: bytes) -> Image.Image:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data), formats=FORMATS) as picture:
                width, height = picture.size
                if not 0 < width * height <= MAX_PIXELS:
                    raise InvalidRequest(
                        f"This picture has {width:,} x {height:,} pixels; a preview may be made of {_MOST}."
                    )
                picture.draft("RGB", (LARGEST_SIDE, LARGEST_SIDE))
                shown = ImageOps.exif_transpose(picture)
                return shown.convert("RGBA" if shown.has_transparency_data else "RGB")
    except InvalidRequest:
        raise
    except Image.DecompressionBombError as error:
        raise InvalidRequest(
            f"This picture has far too many pixels; a preview may be made of {_MOST}."
        ) from error
    except Exception as error:  # Pillow's readers raise anything at all for damaged files
        raise InvalidRequest(
            "This is no picture that can be a preview. PNG, JPEG, WebP, AVIF and GIF files can, "
            "if they are whole."
        ) from error


def store(blobs: BlobStore, data: bytes) -> str:
    """Keep a picture as a preview; the sha256 by which it is found. Raises InvalidRequest."""
    small = encoded(data)
    digest = hashlib.sha256(small).hexdigest()
    blobs.put(keys.model_preview(digest), small, content_type=MEDIA_TYPE)
    return digest
