"""Augmentation against plain per-image numpy."""

from itertools import pairwise

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from labreport.images import augment


@pytest.fixture
def images():
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (20, 32, 32, 3), dtype=torch.uint8, generator=generator)


def shifts_of(seed, count, reach):
    return torch.randint(-reach, reach + 1, (2, count, 1), generator=torch.Generator().manual_seed(seed))[:, :, 0]


@pytest.mark.parametrize("translate", [0, 2, 4])
def test_geometry_is_reflect_pad_crop_and_flip(images, translate):
    index = torch.tensor([3, 3, 0, 19, 7])
    mirrored = torch.tensor([False, True, True, False, True])
    got = augment.geometry(images, index, mirrored, translate, torch.Generator().manual_seed(1))
    shifts = shifts_of(1, len(index), translate)
    for i, source in enumerate(index):
        image = images[source].numpy()
        if mirrored[i]:
            image = image[:, ::-1]
        padded = np.pad(image, ((translate,) * 2, (translate,) * 2, (0, 0)), mode="reflect")
        top, left = translate + int(shifts[0, i]), translate + int(shifts[1, i])
        expected = padded[top : top + 32, left : left + 32].transpose(2, 0, 1)
        np.testing.assert_array_equal(got[i].numpy(), expected)


@pytest.mark.parametrize("translate", [0, 2])
def test_no_mirror_mask_is_a_mask_of_none(images, translate):
    index, nothing = torch.arange(6), torch.zeros(6, dtype=torch.bool)
    got, expected = (
        augment.geometry(images, index, mask, translate, torch.Generator().manual_seed(1)) for mask in (None, nothing)
    )
    torch.testing.assert_close(got, expected)


def test_batches_come_out_channels_last(images):
    out = augment.geometry(images, torch.arange(4), torch.zeros(4, dtype=torch.bool), 2, torch.Generator())
    assert augment.normalize(out).is_contiguous(memory_format=torch.channels_last)


def test_normalize_follows_its_definition(images):
    batch = images.permute(0, 3, 1, 2)
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (augment.MEAN, augment.STD))
    scaled = batch.float() / 255
    torch.testing.assert_close(augment.normalize(batch, "standard"), (scaled - mean) / std, atol=2e-6, rtol=1e-5)
    torch.testing.assert_close(augment.normalize(batch, "mean"), scaled - mean, atol=1e-6, rtol=1e-5)


def test_alternating_flip_shows_both_sides_in_any_two_epochs():
    index, coin = torch.arange(100), torch.rand(100, generator=torch.Generator().manual_seed(0)) < 0.5
    masks = [augment.mirror_mask("alternating", index, epoch, coin, torch.Generator()) for epoch in range(4)]
    for now, then in pairwise(masks):
        assert (now ^ then).all()
    assert 20 < masks[0].sum() < 80


def test_random_flip_changes_from_draw_to_draw():
    index, generator = torch.arange(1000), torch.Generator().manual_seed(0)
    first, second = (augment.mirror_mask("random", index, 0, index < 0, generator) for _ in range(2))
    assert (first != second).any()
    assert 400 < first.sum() < 600


def test_cutout_erases_one_square_of_its_size():
    out = augment.cutout(torch.ones(50, 3, 32, 32), 8, torch.Generator().manual_seed(0))
    for image in out:
        rows, columns = (image[0] == 0).nonzero(as_tuple=True)
        assert len(rows) == 64
        assert rows.max() - rows.min() == columns.max() - columns.min() == 7
        assert (image[1:] == image[0]).all()
    assert len({tuple((image[0] == 0).nonzero()[0].tolist()) for image in out}) > 20


def test_resize_keeps_a_constant_and_blurs_a_checkerboard():
    checkers = ((torch.arange(32)[:, None] + torch.arange(32)) % 2).float().expand(1, 3, 32, 32)
    assert augment.resize(checkers, 32) is checkers
    small = augment.resize(checkers, 24)
    assert small.shape == (1, 3, 24, 24)
    aliased = F.interpolate(checkers, size=(24, 24), mode="bilinear")
    assert small.std() < aliased.std()  # antialiasing: less of the pattern that 24 pixels cannot carry
    torch.testing.assert_close(augment.resize(torch.full((1, 3, 32, 32), 0.3), 24), torch.full((1, 3, 24, 24), 0.3))
