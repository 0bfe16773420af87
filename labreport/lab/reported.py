"""The chapter on anyone's report: its numbers beside each other, and beside the reference run. It trains nothing."""

from __future__ import annotations

import os
from pathlib import Path

from labreport.evidence import figures, plausibility
from labreport.facts.reported import LAB_REPORT, Report, read_report
from labreport.lab.session import Lab, caveat_of


def read(path: str | Path | None = None) -> Report:
    """The report's numbers from a TOML file; None means `$LABREPORT_REPORTED`, else the lab report's own.

    Raises:
        ReportedError: the file cannot be read, or something in it is not of the form.
    """
    path = path or os.environ.get("LABREPORT_REPORTED") or None
    return read_report(Path(path).expanduser()) if path else LAB_REPORT


def contradictions(lab: Lab, report: Report) -> None:
    """What of the report cannot be right together, found without any measurement."""
    found = plausibility.contradictions(report)
    if found:
        caption = "Numbers of the report that contradict each other"
        lab.table(plausibility.contradictions_table(found), "contradictions", caption, caveat="")
    for system in report.systems.values():
        if system.per_class:
            how = plausibility.rounding(system.per_class)
            ways = {"either": "rounded or cut off, which is the same here", "neither": "neither rounded nor cut off"}
            lab.say(f"The listing of `{system.name}` has its percentages {ways.get(how, how)}.")
    lab.say(f"Contradictions found: {len(found)}.")


def beside(lab: Lab, report: Report) -> None:
    """Each stated accuracy and loss beside the reference run of its network."""
    reference = {name: records for name, records in lab.reference().items() if name in report.systems}
    found = plausibility.beside(report, reference)
    if not found:
        lab.say("The report states no accuracy and no loss.")
        return
    caption = (
        "Reported numbers beside the reference run's (accuracies in %, mean ± deviation over (n) seeds), and where one "
        "more training of that network would lie with 95 % probability"
    )
    lab.table(plausibility.plausibility_table(found), "beside", caption, caveat_of(reference))
    if any(one.measured for one in found if one.statement.quantity.endswith("accuracy")):
        caption = "Reported accuracies, and where one more training of each network would lie with 95 % probability."
        lab.show(figures.beside(found), "beside-plot", caption, caveat_of(reference))


def listings(lab: Lab, report: Report) -> None:
    """Which network each listing of classes fits."""
    reference = lab.reference()
    listed = [system for system in report.systems.values() if system.per_class]
    if not listed:
        lab.say("The report lists no classes.")
    for system in listed:
        found = plausibility.fits(system.per_class, reference)
        if not found:
            lab.say("The reference run has no network with two seeds, so a listing can be compared with none.")
            return
        caption = f"The listing of {system.name} beside each network of the reference run, the best fit first"
        table = plausibility.fits_table(found, len(system.per_class))
        lab.table(table, f"fits-{system.name}", caption, caveat_of(reference))
        records = reference[found[0].name]
        caption = f"The listing of {system.name} beside the network that it fits best, {found[0].title}."
        lab.show(figures.per_class(records, system), f"fits-{system.name}-plot", caption, caveat_of(reference))
