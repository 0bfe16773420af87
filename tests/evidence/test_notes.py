"""What is said of a training that goes wrong, and that nothing is said of one that goes well."""

import math

import pytest

from labreport.evidence.notes import notes
from labreport.records.record import Epoch

LN10 = math.log(10)


def row(train_loss=1.5, train_accuracy=0.45, val_loss=1.4, val_accuracy=0.5):
    return [Epoch(1, 0.1, train_loss, train_accuracy, val_loss, val_accuracy, 1.0)]


@pytest.mark.parametrize(
    ("history", "kinds"),
    [
        (row(), set()),
        (row(LN10, 0.11, LN10, 0.13), {"ln K"}),
        (row(LN10, 0.1, LN10, 0.1), {"one class"}),
        (row(55.0, 0.1, LN10, 0.1), {"diverges", "one class"}),
        (row(3.1, 0.2, 1.9, 0.3), set()),  # a wild beginning that is over
        (row(0.2, 0.95, 1.4, 0.7), {"by heart"}),
        (row(1.9, 0.4, None, None), set()),
        (row(2.9, 0.1, None, None), {"diverges"}),
    ],
)
def test_notes_by_kind(history, kinds):
    found = notes(history, 10, lr=0.1)
    assert set(found) == kinds
    assert all("after epoch 1" in note and "chapter" in note for note in found.values())
