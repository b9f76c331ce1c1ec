"""Pictures on the wire: raw, or JPEG whose size is read and compared before anything is decoded."""

from __future__ import annotations

import io

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from lerobot.common.inference_server.wire import WireError

QUALITY = 90


def encode(picture: np.ndarray, quality: int = QUALITY) -> dict:
    """A JPEG of a picture uint8 (H, W, 3) in RGB."""
    bgr = cv2.cvtColor(np.ascontiguousarray(picture), cv2.COLOR_RGB2BGR)
    _, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return {"jpeg": data.tobytes(), "shape": list(picture.shape)}


def decode(value: np.ndarray | dict, where: str) -> np.ndarray:
    """The picture uint8 (H, W, 3); WireError unless it is one of the size that its message announced."""
    if isinstance(value, np.ndarray):
        return value
    height, width, channels = value["shape"] if len(value["shape"]) == 3 else (0, 0, 0)
    try:
        with Image.open(io.BytesIO(value["jpeg"]), formats=("JPEG",)) as image:
            if image.size != (width, height) or image.mode != "RGB" or channels != 3:
                raise WireError(f"{where}: the JPEG is {image.size} {image.mode}, announced {tuple(value['shape'])}.")
            return np.array(image)
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as e:
        raise e if isinstance(e, WireError) else WireError(f"{where}: no JPEG ({e}).") from None
