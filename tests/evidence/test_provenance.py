"""Systems whose seeds were not trained alike are named."""

import dataclasses

from fake_records import FAKE_MACHINE, fake_records

from labreport.evidence.provenance import differing


def with_threads(record, threads):
    (stretch,) = record.stretches
    machine = dataclasses.replace(FAKE_MACHINE, threads=threads)
    return dataclasses.replace(record, stretches=(dataclasses.replace(stretch, environment=machine),))


def test_systems_whose_seeds_had_other_threads_are_named():
    alike, other = fake_records("baseline", 2), fake_records("fast94", 2)
    assert differing({"baseline": alike, "fast94": other}) == ""
    other[1] = with_threads(other[1], 2)
    assert differing({"baseline": alike, "fast94": other}) == (
        f"Seeds of one system that differ: {other[0].title}, in threads (1 / 2)."
    )
