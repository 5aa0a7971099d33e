"""Pictures as data URIs for a page that loads nothing: small ones pixel by pixel, large ones as thumbnails."""

import base64
import io
from math import sqrt

from PIL import Image

SMALL_PX = 64
"""Pictures up to this size are kept exactly and enlarged without smoothing; sandbox pictures are 24."""
MIN_THUMBNAIL_PX, MAX_THUMBNAIL_PX = 96, 384
BYTES_PER_PIXEL = 0.2
"""What a photograph takes as WebP of quality 75; noise takes about four times as much."""


def thumbnail_px(num_pictures: int, budget: int) -> int:
    """How large thumbnails may be so that so many of them fit so many bytes of data URIs.

    A data URI takes 4 bytes for 3 of the file: px^2 * BYTES_PER_PIXEL * 4/3 * num_pictures = budget.
    """
    wanted = sqrt(budget * 3 / 4 / BYTES_PER_PIXEL / max(1, num_pictures))
    return int(min(MAX_THUMBNAIL_PX, max(MIN_THUMBNAIL_PX, wanted // 16 * 16)))


def is_small(image: Image.Image) -> bool:
    return max(image.size) <= SMALL_PX


def image_uri(image: Image.Image, max_px: int = MAX_THUMBNAIL_PX) -> str:
    """A picture as a data URI; a large one is reduced until its longer side is `max_px`."""
    buffer = io.BytesIO()
    if is_small(image):
        kind = "png"
        image.save(buffer, "PNG")
    else:
        kind = "webp"
        image = image.copy()
        image.thumbnail((max_px, max_px))
        image.save(buffer, "WEBP", quality=75)
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"
