"""Pictures of every kind come out as 32×32 RGB; what is none is named in a sentence."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from labreport.images.photos import PhotoError, to_images

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def colours(images: torch.Tensor) -> list[tuple[int, ...]]:
    """The centre pixel of each image."""
    return [tuple(image[:, 16, 16].tolist()) for image in images]


def halves(width: int, height: int, left=RED, right=BLUE) -> Image.Image:
    image = Image.new("RGB", (width, height), left)
    image.paste(right, (width // 2, 0, width, height))
    return image


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def test_an_image_of_the_right_size_is_not_touched():
    pixels = np.random.default_rng(0).integers(0, 256, (2, 3, 32, 32), dtype=np.uint8)
    assert np.array_equal(to_images(pixels).numpy(), pixels)
    assert np.array_equal(to_images(torch.from_numpy(pixels)).numpy(), pixels)
    assert np.array_equal(to_images(pixels.transpose(0, 2, 3, 1)).numpy(), pixels)
    as_png = encoded(Image.fromarray(pixels[0].transpose(1, 2, 0)), "PNG")
    for file in (as_png, memoryview(as_png), io.BytesIO(as_png)):
        assert np.array_equal(to_images(file).numpy(), pixels[:1])


@pytest.mark.parametrize("size", [(1, 1), (7, 5), (31, 33), (32, 1000), (4000, 30), (640, 480)])
def test_pictures_of_every_size(size):
    image = to_images(Image.new("RGB", size, GREEN))
    assert image.shape == (1, 3, 32, 32) and image.dtype == torch.uint8
    assert colours(image) == [GREEN]


def test_the_central_square_is_taken():
    wide = Image.new("RGB", (300, 100), RED)
    wide.paste(BLUE, (100, 0, 200, 100))
    assert (to_images(wide)[0] == torch.tensor(BLUE)[:, None, None]).all()


def test_every_pixel_counts_when_a_large_picture_is_made_small():
    """Black and white lines, one pixel wide, become grey; picking single pixels would keep them."""
    lines = np.zeros((512, 512), np.uint8)
    lines[::2] = 255
    assert to_images(lines).float().sub(127.5).abs().max() < 3


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP"])
def test_files_of_many_kinds(kind, tmp_path):
    path = tmp_path / f"blue.{kind.lower()}"
    path.write_bytes(encoded(Image.new("RGB", (50, 40), BLUE), kind))
    for picture in (path, str(path)):
        assert to_images(picture)[0, :, 16, 16].tolist() == pytest.approx(BLUE, abs=3)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "HSV", "LAB", "I", "I;16", "F"])
def test_every_mode_of_pillow_gives_three_channels(mode):
    assert to_images(Image.new(mode, (40, 40))).shape == (1, 3, 32, 32)


def test_grey_of_sixteen_bits_keeps_its_shades(tmp_path):
    """Pillow's own conversion would make everything from 255 up white."""
    grey = Image.fromarray(np.full((40, 40), 0x8080, np.uint16))
    assert colours(to_images(encoded(grey, "PNG"))) == [(0x80, 0x80, 0x80)]
    dark = Image.fromarray(np.full((40, 40), 257, np.uint16))
    assert colours(to_images(encoded(dark, "PNG"))) == [(1, 1, 1)]
    assert colours(to_images(Image.fromarray(np.full((40, 40), 0.5, np.float32)))) == [(128, 128, 128)]


def test_what_is_transparent_is_white():
    image = Image.new("RGBA", (64, 64), (*RED, 0))
    image.paste((*RED, 255), (0, 0, 64, 32))
    top, bottom = to_images(image)[0, :, 8, 8], to_images(image)[0, :, 24, 8]
    assert (tuple(top.tolist()), tuple(bottom.tolist())) == (RED, WHITE)
    palette = Image.new("P", (40, 40), 3)
    assert colours(to_images(encoded(palette, "GIF", transparency=3))) == [WHITE]


def test_a_photo_is_turned_as_its_camera_says():
    """Orientation 6: the camera was held so that the picture's left side is stored as its top."""
    exif = Image.Exif()
    exif[0x0112] = 6
    stored = halves(64, 64)  # red on the left, which is shown at the top
    shown = to_images(encoded(stored, "PNG", exif=exif))[0]
    assert tuple(shown[:, 4, 16].tolist()) == RED
    assert tuple(shown[:, 28, 16].tolist()) == BLUE


@pytest.mark.parametrize("shape", [(40, 40), (40, 40, 1), (1, 40, 40), (3, 40, 40), (40, 40, 3), (40, 40, 4)])
def test_arrays_of_every_layout(shape):
    whole = np.full(shape, 255, np.uint8)
    for array in (whole, whole.astype(np.int64), np.ones(shape), torch.ones(shape), np.ones(shape, bool)):
        assert colours(to_images(array)) == [WHITE]


def test_a_list_may_be_mixed(tmp_path):
    path = tmp_path / "red.png"
    Image.new("RGB", (9, 9), RED).save(path)
    mixed = to_images([path, Image.new("RGB", (50, 20), GREEN), np.ones((8, 8))])
    assert colours(mixed) == [RED, GREEN, WHITE]


@pytest.mark.parametrize(
    ("picture", "words"),
    [
        ("no-such.jpg", "no-such.jpg: no such file"),
        ([], "no picture was given"),
        (7, "7: not a picture"),
        (np.zeros((2, 5)) - 1, "from -1 to -1"),
        (np.full((5, 5), np.nan), "nan"),
        (np.full((5, 5), 300), "from 300 to 300"),
        (np.full((5, 5), 1.5), "from 1.5 to 1.5"),
        (np.zeros(5), r"shape \(5,\)"),
        (np.zeros((5, 5, 7)), r"shape \(5, 5, 7\)"),
        (np.zeros((0, 5)), r"shape \(0, 5\)"),
        (np.full((5, 5), "a"), "type <U1"),
        (b"", "not a picture that Pillow can read"),
    ],
)
def test_what_is_no_picture_is_named(picture, words):
    with pytest.raises(PhotoError, match=words):
        to_images(picture)


def test_files_that_are_no_pictures_are_named(tmp_path):
    text, cut = tmp_path / "notes.jpg", tmp_path / "cut.png"
    text.write_text("not a picture")
    whole = encoded(Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)), "PNG")
    cut.write_bytes(whole[: len(whole) // 2])
    for path, words in ((tmp_path, "a folder"), (text, "not a picture that Pillow"), (cut, "cannot be read")):
        with pytest.raises(PhotoError, match=f"{path}: {words}"):
            to_images([path])
