"""The README's numbers are those of the committed records and of the committed benchmark, and nothing else's."""

import json

import pytest

from labreport import Lab, paths
from labreport.bench import bench
from labreport.evidence import tables

README = (paths.REPOSITORY / "README.md").read_text()
PERFORMANCE = (paths.REPOSITORY / "docs" / "performance.md").read_text()
REFERENCE = paths.REPOSITORY / "figures" / "paper"


@pytest.fixture(scope="module")
def frame():
    """Table 1 of the committed records, with its marks."""
    lab = Lab.open("paper")
    reference = lab.reference()
    return tables.table1(reference, lab.of_earlier_code(reference))


def test_the_first_table_is_the_reference_runs(frame):
    for row in frame.itertuples(index=False):
        assert f"| {' | '.join(row[:7])} | {row[9]} |" in README


def test_the_committed_table_is_the_reference_runs_too(frame):
    assert (REFERENCE / "table1.csv").read_text() == frame.to_csv(index=False)


def test_the_benchmarks_table_is_the_committed_one():
    measured = json.loads((REFERENCE / "bench.json").read_text())
    assert {row["name"] for row in measured["rows"]} == set(bench.ROWS)
    for row in measured["rows"]:
        assert f"| `{row['name']}` | {row['median']:.2f} {row['unit']} |" in PERFORMANCE
