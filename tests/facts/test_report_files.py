"""A file of reported numbers: what is printed becomes a value; a mistake is told with its line and field."""

import pytest

from labreport import paths
from labreport.facts.reported import ReportedError, read_report

GOOD = """title = "Mine"
[[system]]
network = "fine_tuned"
states = [
    { quantity = "test accuracy", printed = "79.1%", place = "3" },
]
listing = "Test Accuracy of dog: 67% (678/1000)"
[[table]]
method = "Fine-tuning"
printed = "79%"
network = "fine_tuned"
"""


def write(tmp_path, text):
    path = tmp_path / "mine.toml"
    path.write_text(text)
    return path


def test_the_example_is_read():
    report = read_report(paths.REPOSITORY / "docs" / "reported.toml")
    assert len(report.systems["fine_tuned"].per_class) == 10
    assert report.table[0].percent == 79


@pytest.mark.parametrize(
    ("quantity", "printed", "value", "tolerance"),
    [
        ("test accuracy", "78%", 0.78, 0.005),
        ("test accuracy", "78.4 %", 0.784, 0.0005),
        ("test accuracy", "78.08%", 0.7808, 0.0),
        ("test accuracy", "0.78", 0.78, 0.005),
        ("test accuracy", "78% (7808/10000)", 0.7808, 0.0),
        ("test loss", "0.64", 0.64, 0.005),
        ("parameters", "541,094", 541_094, 0.0),
        ("size", "2.1 MB", 2.1, 0.05),
    ],
)
def test_what_is_printed_becomes_a_value_and_its_last_digit_a_tolerance(tmp_path, quantity, printed, value, tolerance):
    text = GOOD.replace('"test accuracy", printed = "79.1%"', f'"{quantity}", printed = "{printed}"')
    (statement,) = read_report(write(tmp_path, text)).systems["fine_tuned"].statements
    assert statement.value == pytest.approx(value)
    assert statement.tolerance == pytest.approx(tolerance)
    assert statement.printed == printed


MISTAKES = [
    ("title =", "titel =", r"'title'|'titel'"),
    ('"fine_tuned"\nstates', '"vgg"\nstates', r"line 3: field 'network'.*'vgg'.*baseline"),
    ("test accuracy", "top-5 accuracy", r"line 5: field 'quantity'.*'top-5 accuracy'"),
    ('"79.1%"', '"791%"', r"line 5: field 'printed'.*'791%'"),
    ('"79.1%"', '"many"', r"line 5: field 'printed'.*'many'"),
    ('"79.1%"', "79.1", r"line 5: field 'printed'.*wrong type.*79.1"),
    ("dog: 67% (678/1000)", "dog: about 67%", r"line 7: listing"),
    ("dog: 67%", "wolf: 67%", r"line 7: listing.*airplane"),
    ("(678/1000)", "(678/0)", r"line 7: listing.*no image"),
    ('"79.1%"', '"7.91e-1"', r"line 5: field 'printed'.*'7.91e-1' is not written out"),
    ('printed = "79%"\n', 'printed = "79%"\nimages = "all"\n', r"field 'images'.*'all'"),
    ("method =", "name =", r"field '(method|name)'"),
    ("[[system]]", "[[system]", r"not TOML.*line 2"),
    ('place = "3"', 'place = "3", page = 4', r"line 5: field 'page' is unknown"),
]


@pytest.mark.parametrize(("right", "wrong", "words"), MISTAKES)
def test_a_mistake_is_told_with_its_line_and_field(tmp_path, right, wrong, words):
    with pytest.raises(ReportedError, match=words) as caught:
        read_report(write(tmp_path, GOOD.replace(right, wrong)))
    assert "mine.toml" in str(caught.value)


def test_files_that_are_not_there_or_say_nothing(tmp_path):
    with pytest.raises(ReportedError, match="cannot be read"):
        read_report(tmp_path / "nowhere.toml")
    with pytest.raises(ReportedError, match="states nothing"):
        read_report(write(tmp_path, 'title = "Empty"'))
