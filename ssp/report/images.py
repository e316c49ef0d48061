"""Pictures inside the page: a data URI is the picture itself, so that the page fetches nothing."""

from __future__ import annotations

import base64
import io
from typing import Any

from PIL import Image


def data_uri(image: Image.Image, kind: str, **options: Any) -> str:  # noqa: ANN401 - whatever the format knows
    """A picture as the address of itself."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"
