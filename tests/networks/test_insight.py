"""Which pixels matter, on networks of which it is known."""

import pytest
import torch
from torch import nn

from labreport.networks import insight, models


class OnePixel(nn.Module):
    """Its class 1 hangs on the red of pixel (8, 20) alone."""

    def forward(self, images):
        red = images[:, 0, 8, 20]
        return torch.stack([torch.zeros_like(red), red], dim=1)


@pytest.fixture
def image():
    return torch.full((1, 3, 32, 32), 2.0)


def test_the_gradient_is_where_the_logit_hangs_on_the_image(image):
    slope = insight.gradient(OnePixel(), image, 1)
    p = torch.sigmoid(torch.tensor(2.0))
    assert slope[8, 20] == pytest.approx(1 - p.item())  # d log p / d logit
    assert slope.count_nonzero() == 1


def test_occlusion_finds_the_pixel_and_how_much_hangs_on_it(image):
    found = insight.occlusion(OnePixel(), image, 1, side=6, step=2)
    loss = torch.sigmoid(torch.tensor(2.0)) - 0.5
    assert found.max() == pytest.approx(loss.item()) and found[8, 20] == found.max()
    rows, columns = found.nonzero(as_tuple=True)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (4, 13, 16, 25)  # squares that hide (8, 20)


def test_occlusion_of_what_another_part_can_stand_in_for_is_nothing(image):
    class Either(nn.Module):
        def forward(self, images):
            best = images[:, 0, [2, 29], [2, 29]].amax(1)
            return torch.stack([torch.zeros_like(best), best], dim=1)

    assert insight.occlusion(Either(), image, 1).abs().max() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(("name", "shapes"), [
    ("baseline", [(16, 33, 33), (32, 17, 17), (64, 7, 7)]),
    ("fast94", [(24, 31, 31), (64, 31, 31), (64, 15, 15), (256, 15, 15), (256, 7, 7), (256, 7, 7), (256, 3, 3)]),
])  # fmt: skip
def test_every_convolutions_maps_in_the_order_of_computation(name, shapes, image):
    model = models.build(name).eval()
    maps = insight.feature_maps(model, image)
    assert [tuple(values.shape) for values in maps.values()] == shapes
    first = next(m for m in model.modules() if isinstance(m, nn.Conv2d))
    assert torch.equal(next(iter(maps.values())), first(image)[0])
    assert not any(m._forward_hooks for m in model.modules())
