"""Pictures of any kind and size, made into what the networks here look at: 32×32 pixels in red, green and blue.

A picture is turned as its EXIF data say, cut to its central square and scaled, with every pixel of the square counted.
What is transparent becomes white. An image that has 32×32 pixels already stays as it is.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError

SIDE = 32  # pixels


class PhotoError(ValueError):
    """Something is not a picture that can be read; the message names it and the way out."""


def to_images(pictures: Any) -> torch.Tensor:
    """One picture or several → (N, 3, 32, 32) uint8.

    A picture is a path, an open file or its content as bytes, a PIL image, or an array or tensor: (H, W), (H, W, C) or
    (C, H, W) with one, two, three or four channels (grey, grey with alpha, RGB, RGBA), whole numbers from 0 to 255 or
    fractions from 0 to 1. Several pictures are a list of such, or an array of four dimensions.

    Raises:
        PhotoError: a file cannot be read as a picture, or an array is none.
    """
    if _is_file(pictures) or isinstance(pictures, Image.Image) or getattr(pictures, "ndim", 4) < 4:
        pictures = [pictures]
    if not isinstance(pictures, Iterable):
        raise PhotoError(f"{pictures!r:.60}: not a picture; give a path, a PIL image, an array, or a list of these")
    squares = [np.asarray(_square(_opened(picture))) for picture in pictures]
    if not squares:
        raise PhotoError("no picture was given; give at least one")
    return torch.from_numpy(np.stack(squares)).permute(0, 3, 1, 2).contiguous()


def _square(image: Image.Image) -> Image.Image:
    """The central square of an image at 32×32 pixels."""
    side = min(image.size)
    left, top = ((length - side) // 2 for length in image.size)
    square = image.crop((left, top, left + side, top + side))  # first, else the scaling looks over the square's edge
    return square.resize((SIDE, SIDE), Image.Resampling.BICUBIC)


def _opened(picture: Any) -> Image.Image:
    """The whole picture, upright, on white, of mode RGB."""
    if isinstance(picture, torch.Tensor):
        picture = picture.detach().cpu().numpy()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd metadata, and of pictures of 90 megapixels: they are read
            if isinstance(picture, Image.Image):
                return _flat(picture)
            if not _is_file(picture):
                return _flat(Image.fromarray(_channels_last(np.asarray(picture))))
            with Image.open(io.BytesIO(picture) if isinstance(picture, bytes | memoryview) else picture) as image:
                return _flat(image)
    except PhotoError:
        raise
    except FileNotFoundError as error:
        raise PhotoError(f"{picture}: no such file; name a picture that is there") from error
    except IsADirectoryError as error:
        raise PhotoError(f"{picture}: a folder; name the pictures in it") from error
    except UnidentifiedImageError as error:
        raise PhotoError(
            f"{_named(picture)}: not a picture that Pillow can read; save it as JPEG or PNG (some phones' are HEIC)"
        ) from error
    except Exception as error:  # decoders raise nearly any type for a damaged file
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise PhotoError(f"{_named(picture)}: cannot be read ({reason}); save it anew as JPEG or PNG") from error


def _flat(image: Image.Image) -> Image.Image:
    """An image of any mode as RGB, upright and on white."""
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith(("I", "F")):  # 16 bits and more a pixel, or fractions, which Pillow would cut off at 255
        image = Image.fromarray(_eight_bits(np.asarray(image, dtype=float), sixteen="16" in image.mode))
    if image.has_transparency_data:
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
    return image.convert("RGB")


def _eight_bits(grey: np.ndarray, sixteen: bool) -> np.ndarray:
    """Grey values as uint8. White is 65535 in 16 bits, else the least of 1, 255 and 65535 that no value exceeds."""
    if not (grey.min() >= 0 and grey.max() <= 65_535):  # nan is caught as well
        raise ValueError(f"its pixels go from {grey.min():g} to {grey.max():g}")
    white = 65_535 if sixteen else next(top for top in (1, 255, 65_535) if grey.max() <= top)
    return np.rint(255 * grey / white).astype(np.uint8)


def _channels_last(array: np.ndarray) -> np.ndarray:
    """An array of one picture → (H, W) or (H, W, C) uint8 with C of 2, 3 or 4."""
    shape = array.shape
    if array.ndim == 3 and shape[0] in (1, 2, 3, 4) and (shape[2] not in (1, 2, 3, 4) or shape[0] == 3):
        array = array.transpose(1, 2, 0)
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.size == 0 or not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (2, 3, 4))):
        raise PhotoError(f"an array of shape {shape}: not a picture; give (H, W), (H, W, C) or (C, H, W), C up to 4")
    if array.dtype == bool or array.dtype.kind == "f":
        array, top = np.asarray(array, dtype=float), 1
    elif array.dtype.kind in "iu":
        top = 255
    else:
        raise PhotoError(f"an array of type {array.dtype}: not a picture; give whole numbers or fractions")
    if not (array.min() >= 0 and array.max() <= top):  # nan is caught as well
        raise PhotoError(
            f"an array from {array.min():g} to {array.max():g}: not a picture; give whole numbers from 0 to 255, or "
            "fractions from 0 to 1"
        )
    return np.rint(array * (255 // top)).astype(np.uint8)


def _is_file(picture: Any) -> bool:
    return isinstance(picture, str | Path | bytes | memoryview) or hasattr(picture, "read")


def _named(file: Any) -> str:
    return str(file) if isinstance(file, str | Path) else str(getattr(file, "name", "this picture"))
