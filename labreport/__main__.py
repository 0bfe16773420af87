"""The command line: `python -m labreport COMMAND`."""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from labreport import paths
from labreport.facts.recipes import PROFILES, RECIPES

if TYPE_CHECKING:
    from labreport.facts.recipes import Recipe
    from labreport.lab.session import Lab
    from labreport.records.record import RunRecord
    from labreport.running.plan import Place

# Every handler imports what it needs itself, so that --help and a mistyped word are answered at once, without torch.


def main(argv: list[str] | None = None) -> int:
    """Run one command and return the exit status: 0, 1 when it failed, 2 for bad input, 130 when interrupted.

    A report or a training that is asked to end does so from within, with status 75 (`labreport.running.signals`).
    """
    open_streams()
    for stream in (sys.stdout, sys.stderr):  # a terminal of another character set gets question marks, no traceback
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        try:
            return answer(argv)
        finally:
            sys.stdout.flush()  # here, where a closed pipe can be caught, and not when Python ends
    except BrokenPipeError:  # whoever read the output, `head` say, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + 13  # as a program that SIGPIPE ends


def answer(argv: list[str] | None) -> int:
    arguments = parser().parse_args(argv)
    try:
        return arguments.run(arguments)
    except KeyboardInterrupt as error:
        return complain(str(error) or "interrupted; the same command goes on from the last checkpoint", 130)
    except (ValueError, OSError, RuntimeError) as error:
        from labreport.lab.sentences import sentence

        # Our own errors say in a sentence what to do; anything else is a bug, and its traceback is wanted.
        if not type(error).__module__.startswith("labreport.") and not sentence(error, error.__traceback__):
            raise
        return complain(str(error), 2 if isinstance(error, ValueError) else 1)


def open_streams() -> None:
    """Give what the caller has closed, as `2>&-` does, to the null device.

    Else the next file that is opened takes the number 2, and a library's warning is written into a record.
    """
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        if getattr(sys, name) is None:
            opened = os.open(os.devnull, os.O_RDWR)
            if opened != number:
                os.dup2(opened, number)
                os.close(opened)
            setattr(sys, name, os.fdopen(number, mode))


def complain(sentence: str, status: int) -> int:
    print(f"labreport: {' '.join(sentence.split())}", file=sys.stderr)
    return status


# --- the commands -----------------------------------------------------------------------------------------------------


FORMAT_WORDS = {"pdf": "PDF", "html": "web page", "docx": "Word", "tex": "TeX"}


def report(arguments: argparse.Namespace) -> int:
    from labreport.running.signals import ends_when_asked

    formats = [name.strip() for name in arguments.formats.split(",") if name.strip()]
    with ends_when_asked():
        if arguments.reported:
            return _reported(arguments.reported, formats)
        from labreport.document.report import build_report
        from labreport.lab.session import Lab

        if arguments.on:
            lab = Lab.open(arguments.profile, arguments.seed, arguments.data, arguments.device)
            if not lab.reports_only:
                train_many(lab, None, lab.seeds, on=arguments.on)
        built = build_report(arguments.profile, arguments.data, arguments.device, arguments.seed, formats=formats)
    if built.table.exists():
        print(f"\n{built.table.read_text()}")
    for name, path in built.documents.items():
        print(f"{FORMAT_WORDS[name]:<9}{path}")
    print(f"figures, tables, records in {built.figures}")
    return 0


def _reported(path: Path, formats: list[str]) -> int:
    from labreport.document.reported import build_reported

    for name, written in build_reported(path, formats).documents.items():
        print(f"{FORMAT_WORDS[name]:<9}{written}")
    return 0


def train(arguments: argparse.Namespace) -> int:
    from labreport.running.signals import ends_when_asked

    if bool(arguments.recipe) == arguments.all:
        raise ValueError("name one recipe to train, or --all of them")
    with ends_when_asked():
        from labreport.lab.session import Lab
        from labreport.running.local import jobs_for

        lab = Lab.open(arguments.profile, None, arguments.data, arguments.device)
        recipe = None if arguments.all else lab.recipe(arguments.recipe)
        seeds = list(dict.fromkeys(arguments.seeds or lab.seeds))
        counts = [count for count in (arguments.jobs, arguments.threads) if count is not None]
        if min(seeds) < 0 or min(counts, default=1) < 1:
            raise ValueError("seeds are whole numbers from 0 up, jobs and threads from 1 up")
        lab.refuse_stand_in()
        if recipe is None or arguments.on:
            return train_many(lab, recipe, seeds, arguments.jobs, arguments.threads, arguments.on)
        jobs = arguments.jobs or jobs_for(recipe, lab.device)
        if jobs > 1 and len(seeds) > 1:
            return train_many(lab, recipe, seeds, jobs, arguments.threads or 1)
        return train_here(lab, recipe, seeds, arguments.threads)


def train_here(lab: Lab, recipe: Recipe, seeds: Sequence[int], threads: int | None) -> int:
    """In this process, one training after the other; on a GPU the seeds of a small network in step."""
    import torch

    from labreport.training.together import pays, train_together
    from labreport.training.train import train

    if threads:
        torch.set_num_threads(threads)
    records: Iterable[RunRecord]
    if len(seeds) > 1 and pays(recipe, lab.device):
        records = train_together(recipe, lab.data, seeds, profile=lab.profile, device=lab.device)
    else:
        records = (train(recipe, lab.data, seed, profile=lab.profile, device=lab.device) for seed in seeds)
    for record in records:
        print(summary(record, lab.store.folder), flush=True)
    return 0


def train_many(
    lab: Lab,
    recipe: Recipe | None,
    seeds: Sequence[int],
    jobs: int | None = None,
    threads: int | None = None,
    on: str | None = None,
) -> int:
    """What the store lacks of a recipe (None: of all), several seeds at once; a line for each when it ends."""
    from labreport.running.plan import carry_out, missing, recipes_of

    lab.refuse_stand_in()
    status, store, info = 0, lab.store, lab.data.info
    with place_for(lab, jobs, on) as place:
        recipes = [recipe] if recipe else recipes_of(lab.profile, gpus=bool(place.gpus))
        trainings = missing(recipes, seeds, store, info, place, threads)
        if stored := len(recipes) * len(seeds) - len(trainings):
            print(f"stored already: {stored}, in {store.folder}", flush=True)
        for number, outcome in enumerate(carry_out(trainings, place), start=1):
            said = f"{outcome.training}: not trained; {outcome.problem}"
            if outcome.record:
                said = summary(outcome.record, store.folder)
            status |= bool(outcome.problem)
            print(f"[{number}/{len(trainings)}] {said}", file=sys.stderr if outcome.problem else sys.stdout, flush=True)
    return status


def place_for(lab: Lab, jobs: int | None, on: str | None) -> AbstractContextManager[Place]:
    """This machine, or a Ray cluster."""
    if not on:
        from labreport.running.local import this_machine

        return this_machine(lab.store, lab.data.info, lab.profile, lab.data_dir, lab.device, jobs)
    if find_spec("ray") is None:
        raise ValueError("--on ray needs Ray, which is not installed; get it with pip install -e '.[cluster]'")
    from labreport.running.ray import cluster

    return cluster(lab.data, lab.store, lab.profile, lab.device, jobs)


def summary(record: RunRecord, folder: Path) -> str:
    """One line for a finished training."""
    test, val = record.test_score, record.val_score
    validation = f"validation {val.accuracy:.2%}" if val else "trained on the validation images, too"
    return (
        f"{record.name}, seed {record.seed}: test {test.accuracy:.2%} ({round(test.accuracy * test.n)}/{test.n}), "
        f"{', '.join(filter(None, (validation, record.weights_caveat)))}, {record.seconds:.0f} s; "
        f"{folder / record.stem}.json"
    )


def predict(arguments: argparse.Namespace) -> int:
    from labreport.training import trained

    network = trained.load(arguments.network or trained.best_known(), check=False)
    said = network.predict(arguments.pictures)
    print(said.table(arguments.pictures).to_string(index=False))
    print(
        f"\nEvery picture is taken for one of {len(said.classes)} classes ({', '.join(said.classes)}), "
        f"whatever it shows.\n{network}."
    )
    return 0


def show(arguments: argparse.Namespace) -> int:
    from labreport.evidence.provenance import description
    from labreport.records.store import Store

    stores = [Store(paths.records(profile)) for profile in PROFILES]
    found = [record for store in stores for record in store.all() if arguments.record in (record.key, record.stem)]
    path = Path(arguments.record)
    if path.suffix == ".json" and path.exists():
        found = [Store(path.parent).load(path)]
    if not found:
        raise ValueError(f"no record {arguments.record!r}; name a key, or a JSON file of {paths.records('<profile>')}")
    print("\n\n".join(map(description, found)))
    return 0


def verify(arguments: argparse.Namespace) -> int:
    import pandas as pd

    from labreport.lab.session import Lab
    from labreport.running.verify import DIFFERENT, verify

    lab = Lab.open(arguments.profile, None, arguments.data, arguments.device)
    scan = lab.store.scan()
    known = {record.name for record in scan.records} | {record.key for record in scan.records}
    if unknown := sorted(set(arguments.records) - known):
        raise ValueError(f"no record in {lab.store.folder} is named {', '.join(unknown)}; give recipes' names or keys")
    wanted = [r for r in scan.records if not arguments.records or {r.name, r.key} & set(arguments.records)]
    checks = []
    for check in verify(lab.store, wanted, lab.data, lab.device, again=arguments.again):
        print(f"{check.record.stem}: {check.verdict}", file=sys.stderr, flush=True)
        checks.append(check)
    for sentence in scan.left_out:
        print(f"left out: {sentence}", file=sys.stderr)
    print(pd.DataFrame([check.row for check in checks]).to_string(index=False) if checks else "no record to verify")
    done = [check for check in checks if check.checked]
    missed = len(done) < len(checks) if arguments.records else checks and not done
    return int(bool(scan.left_out or missed) or any(check.verdict == DIFFERENT for check in checks))


def weights(arguments: argparse.Namespace) -> int:
    from labreport.lab.session import Lab
    from labreport.training.trained import export_all

    lab = Lab.open("paper", None, arguments.data)
    lab.refuse_stand_in()
    for line in export_all(lab.data):
        print(line, flush=True)
    return 0


def data(arguments: argparse.Namespace) -> int:
    import pandas as pd

    from labreport.lab.session import Lab

    lab = Lab.open(data_dir=arguments.data)
    info = lab.data.info
    place = f"place        {lab.data.place}\n" if lab.data.place else ""
    print(f"source       {info.source}\nformat       {lab.data.format}\n{place}fingerprint  {info.fingerprint}\n")
    splits = {"train": lab.data.train, "val": lab.data.val, "test": lab.data.test}
    counts = pd.DataFrame(
        {name: split.labels.bincount(minlength=len(info.classes)).tolist() for name, split in splits.items()},
        index=info.classes,
    )
    counts.loc["all"] = counts.sum()
    print(counts.to_string())
    return 0


def bench(arguments: argparse.Namespace) -> int:
    from labreport.bench import bench

    bench.main(arguments.json, arguments.rows)
    return 0


def new(arguments: argparse.Namespace) -> int:
    import shutil

    from labreport.files import writing

    folder = arguments.folder.expanduser()
    if folder.exists() and any(folder.iterdir() if folder.is_dir() else [folder]):
        raise ValueError(f"{folder} exists and is not empty; name a new folder")
    with writing(folder):
        shutil.copytree(paths.NOTEBOOKS, folder / "notebooks", ignore=shutil.ignore_patterns(".*"))
        shutil.copy(paths.REPOSITORY / "docs" / "reported.toml", folder)
        (folder / paths.MARKER).touch()
    print(f"notebooks in {folder / 'notebooks'}; go on with\n  cd {folder}\n  python -m labreport report")
    return 0


def gpu(arguments: argparse.Namespace) -> int:
    from labreport.bench import gpu

    gpu.main(arguments.out, arguments.minutes, arguments.data)
    return 0


# --- the words --------------------------------------------------------------------------------------------------------


def option(*names: str, **settings) -> argparse.ArgumentParser:
    """An option that several commands have."""
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument(*names, **settings)
    return shared


DATA = option("--data", metavar="DIR", help="folder with CIFAR-10 (default: $LABREPORT_DATA, data/, a download)")
SESSION = (
    option("--profile", metavar="NAME", help=f"{', '.join(PROFILES)} (default: quick)"),
    DATA,
    option("--device", help="cpu, cuda or cuda:N (default: the GPU if there is one)"),
)
Add = Callable[..., argparse.ArgumentParser]  # of a command: its function, what it does, examples, shared options


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="python -m labreport", description="A CIFAR-10 lab report: trained, measured, typeset."
    )
    commands = top.add_subparsers(title="commands", required=True, metavar="COMMAND")

    def command(handler, words: str, example: str, *parents: argparse.ArgumentParser) -> argparse.ArgumentParser:
        added = commands.add_parser(
            handler.__name__,
            help=words,
            description=words[0].upper() + words[1:] + ".",
            epilog=f"examples:\n{example}",
            parents=parents,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        added.set_defaults(run=handler)
        return added

    add_making(command)
    add_asking(command)
    add_measuring(command)
    return top


def add_making(command: Add) -> None:
    """Commands that make a report, records or a folder."""
    added = command(report, "run the notebooks and typeset the report, as PDF and web page", REPORT_EXAMPLES, *SESSION)
    formats = ",".join(FORMAT_WORDS)
    added.add_argument("--formats", default="pdf,html", metavar="LIST", help=f"of {formats} (default: pdf,html)")
    added.add_argument("--seed", type=int, metavar="N", help="first seed of every training (default: 0)")
    added.add_argument("--on", choices=["ray"], help="train what is missing on a Ray cluster first ($RAY_ADDRESS)")
    words = "instead, ask a report's numbers (docs/reported.toml)"
    added.add_argument("--reported", type=Path, metavar="FILE", help=words)

    words = "train one recipe, or all that the report shows, and keep the records"
    added = command(train, words, TRAIN_EXAMPLES, *SESSION)
    added.add_argument("recipe", metavar="RECIPE", nargs="?", help=", ".join(RECIPES))
    added.add_argument("--all", action="store_true", help="every recipe of the profile that is not stored yet")
    added.add_argument("--on", choices=["ray"], help="on a Ray cluster ($RAY_ADDRESS, else a new one of this machine)")
    added.add_argument("--seeds", type=int, nargs="+", metavar="N", help="default: those that the profile asks for")
    words = "CPU threads of one training (default: all; beside others 1, or 4)"
    added.add_argument("--threads", type=int, metavar="N", help=words)
    words = "trainings at once (default: what the cores, or GPUs, have room for)"
    added.add_argument("--jobs", type=int, metavar="N", help=words)

    words = "write the reference run's trained weights, rounded, to figures/paper/weights"
    command(weights, words, WEIGHTS_EXAMPLES, DATA)

    added = command(new, "write the notebooks into a folder of your own", NEW_EXAMPLES)
    added.add_argument("folder", type=Path, metavar="FOLDER")


def add_asking(command: Add) -> None:
    """Commands that ask what is there: networks, records, data."""
    added = command(predict, "ask a trained network what pictures show", PREDICT_EXAMPLES)
    added.add_argument("pictures", metavar="PICTURE", nargs="+", help="files of any size and kind that Pillow reads")
    added.add_argument("--network", metavar="NAME", help="a recipe's name (default: the best network that there is)")

    added = command(show, "print a record for a person", SHOW_EXAMPLES)
    added.add_argument("record", metavar="RECORD", help="a record's key, or its JSON file")

    added = command(verify, "train stored records' first epochs again, and compare", VERIFY_EXAMPLES, *SESSION)
    added.add_argument("records", metavar="RECORD", nargs="*", help="recipes' names or keys (default: all)")
    added.add_argument("--again", action="store_true", help="those of unchanged code, too")

    command(data, "say which data would be used, and what is in it", DATA_EXAMPLES, DATA)


def add_measuring(command: Add) -> None:
    """Commands that measure a machine."""
    added = command(gpu, "show all that a GPU can in the given time; on a CPU, rehearse it", GPU_EXAMPLES, DATA)
    added.add_argument("--out", type=Path, metavar="DIR", required=True, help="where findings and records go")
    added.add_argument("--minutes", type=float, metavar="N", default=9.0, help="time in all (default: 9)")

    added = command(bench, "measure the speed of training against a plain loop", BENCH_EXAMPLES)
    added.add_argument("--json", type=Path, metavar="FILE", help="write the results there, too")
    added.add_argument("--rows", nargs="+", metavar="ROW", help="only these rows of the table")


REPORT_EXAMPLES = """  python -m labreport report
  python -m labreport report --formats pdf,html,docx,tex
  python -m labreport report --profile paper --data ~/cifar --device cuda"""
TRAIN_EXAMPLES = """  python -m labreport train baseline
  python -m labreport train fine_tuned --profile paper --data ~/cifar --seeds 0 1 2 --jobs 2
  python -m labreport train --all --profile paper --data ~/cifar --on ray"""
PREDICT_EXAMPLES = """  python -m labreport predict photo.jpg
  python -m labreport predict holiday/*.jpg --network fine_tuned"""
SHOW_EXAMPLES = """  python -m labreport show figures/paper/records/baseline-seed0-d53c466b7400.json"""
VERIFY_EXAMPLES = """  python -m labreport verify --profile paper --data ~/cifar
  python -m labreport verify --profile paper --data ~/cifar baseline --again"""
WEIGHTS_EXAMPLES = """  python -m labreport weights --data ~/cifar"""
DATA_EXAMPLES = """  python -m labreport data
  python -m labreport data --data ~/cifar"""
NEW_EXAMPLES = """  python -m labreport new my-report"""
GPU_EXAMPLES = """  python -m labreport gpu --out gpu-findings --minutes 9 --data ~/cifar"""
BENCH_EXAMPLES = """  python -m labreport bench --json bench.json"""


if __name__ == "__main__":
    sys.exit(main())
