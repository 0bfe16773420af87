"""The title page and the summary: which data, records and machines the report stands on, and what it found."""

from __future__ import annotations

import datetime
import html
from collections import Counter
from collections.abc import Sequence

import pandas as pd

from labreport import __version__, paths
from labreport.evidence import tables
from labreport.evidence.claims import Claim, claims, ranking
from labreport.evidence.provenance import differing, provenance_table
from labreport.evidence.tables import RecordsByName
from labreport.lab.session import Lab, table_html
from labreport.records.record import DataInfo, RunRecord

TITLE = "A CIFAR-10 lab report, measured again"
SUBTITLE = (
    "Convolution and cross-entropy, a baseline network, two optimisations, ResNet-18 and other methods: "
    "the numbers that were reported, beside the numbers that this code measured"
)
PROFILE_WORDS = {
    "smoke": "smoke: a few steps of each training, to test the machinery",
    "quick": "quick: the same recipes on shortened schedules, with fewer images",
    "paper": (
        "paper: the lab report’s protocol where it states one; "
        "what it leaves open is chosen, and each recipe’s table says so"
    ),
}
# Markdown, each in a box on the title page.
PROFILE_NOTICES = {
    "smoke": "**A test of the machinery.** Every training was cut to a few steps: the numbers mean nothing.",
    "quick": "**Shortened schedules.** The numbers are a first look; the lab report’s protocol is the profile *paper*.",
}
DATA_WORDS = {
    "official": "CIFAR-10, verified by md5",
    "official images, other files": "CIFAR-10, the official images in other files",
    "unverified copy": "CIFAR-10, unverified copy",
    "synthetic stand-in": "synthetic stand-in: drawn shapes",
}
DATA_NOTICES = {
    "unverified copy": "**Unverified copy of CIFAR-10.** The md5 of the files read is not the official one.",
    "synthetic stand-in": "**Synthetic stand-in.** No number measured on it is a result on CIFAR-10.",
}
NOTATION = "mean ± standard deviation over (n) seeds, with a 95 % interval"
# Of the run that came with the code, which no record can tell.
REFERENCE_CONDITIONS = "Trainings ran two side by side, and most beside other work: their times are upper bounds."


def title_page(lab: Lab, systems: RecordsByName) -> dict:
    """Pandoc's metadata for the title page; values are Markdown."""
    records = [record for runs in systems.values() for record in runs]
    data = {record.data for record in records} or (set() if lab.reports_only else {lab.data.info})
    facts = {"Profile": PROFILE_WORDS[lab.profile], "Data": "; ".join(sorted(map(data_words, data))) or "none"}
    if records:
        last = measured(records)
        facts["Trainings"] = f"{len(records)} runs of {len({record.name for record in records})} networks"
        facts["Conditions"] = conditions(lab, records)
        facts["Measured"] = f"{last.day} {last:%B %Y}"
        facts["Numbers"] = NOTATION
        facts["Versions"] = f"Python {environments(records, 'python')}, labreport {__version__}"
    else:
        facts |= {"Trainings": "none was recorded for this profile", "Versions": f"labreport {__version__}"}
    notices = [PROFILE_NOTICES.get(lab.profile), *(DATA_NOTICES.get(info.source) for info in data)]
    notices += [f"**{note}.**" if (note := tables.weights_note(records)) else ""]
    notices += [earlier_code(lab.of_earlier_code(systems)), *map(left_out, lab.store.scan().left_out)]
    return {
        "title": TITLE,
        "pagetitle": TITLE,
        "series": "Machine Learning · Assignment 2 · Lab report",
        "subtitle": SUBTITLE,
        "notices": list(dict.fromkeys(filter(None, notices))),
        "facts": [{"name": name, "value": value} for name, value in facts.items()],
    }


def earlier_code(counts: dict[str, int]) -> str:
    """A notice on records whose code has changed since, by recipe; empty without any."""
    if not counts:
        return ""
    return (
        f"**Measured by earlier code.** The code has changed since {sum(counts.values())} of the trainings "
        f"({', '.join(counts)}); `python -m labreport verify` trains their first epochs again and compares."
    )


def left_out(sentence: str) -> str:
    """A notice on a record that could not be read or believed."""
    return f"**A record was left out.** {sentence}"


def records_appendix(records: Sequence[RunRecord]) -> str:
    """Every record with its commit and machine, as a chapter of its own; nothing without records."""
    if not records:
        return ""
    caption = "Every training of the systems that are compared; labreport show KEY prints what a record knows."
    caption = " ".join(filter(None, (caption, tables.weights_note(records))))
    table = table_html(provenance_table(records), "records", caption)
    return f'<h1 class="unnumbered">Appendix: the records</h1>\n{table}'


def data_words(data: DataInfo) -> str:
    counts = f"{data.n_train:,} training, {data.n_val:,} validation and {data.n_test:,} test images"
    return f"{DATA_WORDS[data.source]}; {counts}; fingerprint {data.fingerprint}"


def conditions(lab: Lab, records: Sequence[RunRecord]) -> str:
    """What the trainings ran on, of all records together, and what is known of the committed run besides."""
    device, threads, precision, torch = (
        environments(records, key) for key in ("device", "threads", "precision", "torch")
    )
    text = f"{device}; {threads} thread{'s' * (threads != '1')} a training; {precision}; PyTorch {torch}."
    came_with_the_code = lab.store.folder == paths.REPOSITORY / "figures" / "paper" / "records"
    return f"{text} {REFERENCE_CONDITIONS}" if lab.reports_only and came_with_the_code else text


def environments(records: Sequence[RunRecord], key: str) -> str:
    stretches = (stretch for record in records for stretch in record.stretches)
    return " / ".join(sorted({str(getattr(stretch.environment, key)) for stretch in stretches}))


def measured(records: Sequence[RunRecord]) -> datetime.datetime:
    """When the last training was finished, in UTC. It dates the report: the same records give the same document.

    Without records it is now.
    """
    now = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
    return max((datetime.datetime.fromisoformat(record.finished) for record in records), default=now)


def summary(lab: Lab, systems: RecordsByName) -> str:
    """What was measured, on one page as HTML: Table 1, the ranking, how the report's numbers and claims fare."""
    heading = '<h1 class="unnumbered">Summary</h1>'
    records = [record for runs in systems.values() for record in runs]
    if not records:
        return f"{heading}\n<p>No training was recorded for this profile, so there is nothing to sum up.</p>"
    earlier = lab.of_earlier_code(systems)
    frame = tables.table1(systems, earlier).drop(columns=["MiB", "MFLOPs"])
    caption = (
        f"Table 1 of the lab report as measured: {NOTATION}; one training: where one more lies with 95 % probability; "
        "verdict: where that lies, relative to the reported number or what rounds to it"
    )
    caption += "; †: measured by earlier code" if earlier else ""
    caveat = "; ".join(filter(None, (lab.caveat, tables.weights_note(records))))
    titled = f"{caption} ({caveat})" if caveat else caption
    under = "; ".join(filter(None, (caveat, f"{conditions(lab, records)} {differing(systems)}".strip())))
    return "\n".join(
        (
            heading,
            table_html(frame, "summary", titled),
            f"<p>{html.escape(ranking(systems))}</p>",
            f"<p>{html.escape(verdicts(frame))}</p>",
            judged(claims(systems)),
            f"<p><strong>Conditions:</strong> {html.escape(under)}</p>",
        )
    )


def verdicts(table1: pd.DataFrame) -> str:
    """Which of the report's accuracies were measured higher, lower or alike, as a sentence."""
    compared = table1[table1["Verdict"] != tables.NONE]
    if compared.empty:
        return "None of the report’s accuracies can be compared with these runs."
    groups = compared.groupby("Verdict", sort=False)["Method"]
    found = ", ".join(f"{verdict} for {len(names)} ({'; '.join(names)})" for verdict, names in groups)
    return f"Beside {len(compared)} of the report’s accuracies stands a measured one, which {found}."


def judged(found: Sequence[Claim]) -> str:
    """The report's claims with their verdicts, as HTML."""
    counts = Counter(claim.verdict.replace(tables.NONE, "not judged") for claim in found)
    plural = {"holds": "hold", "does not hold": "do not hold", "undecided": "are undecided"}
    words = {kind: kind if count == 1 else plural.get(kind, kind) for kind, count in counts.items()}
    tally = ", ".join(f"{count} {words[kind]}" for kind, count in counts.most_common())
    lines = (f"<li>{html.escape(f'{c.text} ({c.place})')}: <strong>{c.verdict}</strong></li>" for c in found)
    link = '<a href="#which-of-the-reports-claims-hold">evidence and tests</a>'
    return f"<p>Of the report’s {len(found)} claims ({link}): {tally}.</p>\n<ul>{''.join(lines)}</ul>"
