"""One notebook's session: its parameters checked, its data and records, and how it shows what it found.

lab = Lab.open(profile, seed, data_dir, device)
records = lab.train("baseline")
lab.show(figures.curves(records), "baseline-curves", "Loss and accuracy of the baseline.")
"""

from __future__ import annotations

import base64
import copy
import dataclasses
import html
import io
import itertools
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from labreport import paths
from labreport.facts.recipes import (
    KIN,
    KNOWN,
    PROFILES,
    RECIPES,
    SEEDS,
    SMOKE_IMAGES,
    Recipe,
    for_profile,
    kin_of,
    shortened,
)
from labreport.files import write_atomically
from labreport.lab.parameters import refuse_misspelt
from labreport.lab.sentences import in_sentences
from labreport.records.record import CAVEATS, RunRecord
from labreport.records.store import Store

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from labreport.images.cifar10 import Data
    from labreport.training.progress import Watch

PROFILE_CAVEATS = {
    "smoke": f"smoke test: one epoch on {SMOKE_IMAGES} images",
    "quick": "shortened schedules, fewer images",
    "paper": "",
}


WIDTHS = "max-width: 100%; min-width: min(100%, 820px)"  # of a figure in its column
NUMBER = r"[-+−≤<≥>~%[(]*\s?(\d|inf|nan|∞)"


@dataclass(frozen=True)
class Lab:
    """A session with one profile, seed, dataset and device. Make one with `Lab.open`."""

    profile: str
    seed: int
    data_dir: Path | None
    device: str | None
    missing: dict[str, str] = field(default_factory=dict, compare=False)  # recipes that were not run, and why
    whole: set[str] = field(default_factory=set, compare=False)  # recipes that the profile has not shortened
    chapter: int | None = None  # of the report, which its figures and tables bear in their numbers
    _said: set[str] = field(default_factory=set, compare=False, repr=False)
    _seen: list[RunRecord] = field(default_factory=list, compare=False, repr=False)  # of other weights, given out
    _numbered: dict[str, list[str]] = field(default_factory=dict, compare=False, repr=False)  # names, by kind

    @classmethod
    def open(
        cls,
        profile: str | None = None,
        seed: int | None = None,
        data_dir: str | Path | None = None,
        device: str | None = None,
        *,
        chapter: int | None = None,
    ) -> Lab:
        """A session. None means `$LABREPORT_PROFILE` or quick; 0; `$LABREPORT_DATA` or `data/`; a GPU if there is one.

        `chapter` is the notebook's place in the report: its figures and tables are then numbered as they are there.

        Raises:
            ValueError: a parameter has a value that cannot be used, or papermill was given one that does not exist; the
                message names it and what can be.
        """
        in_sentences()
        refuse_misspelt()
        profile = profile or os.environ.get("LABREPORT_PROFILE") or "quick"
        if profile not in PROFILES:
            raise ValueError(f"profile {profile!r} does not exist; choose one of {', '.join(PROFILES)}")
        seed = 0 if seed is None else seed
        if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
            raise ValueError(f"seed {seed!r} must be a whole number from 0 up")
        data_dir = data_dir or os.environ.get("LABREPORT_DATA") or None
        folder = Path(data_dir).expanduser().absolute() if data_dir else None
        if folder is not None and not folder.is_dir():
            raise ValueError(f"data folder {folder} is no folder; name the one that holds CIFAR-10")
        if device is not None:
            _check_device(device)
        return cls(profile, seed, folder, device, chapter=chapter)

    # --- data and records ---------------------------------------------------------------------------------------------

    @cached_property
    def data(self) -> Data:
        """The images: CIFAR-10 where it can be had, else the synthetic stand-in; for `smoke` a small stand-in."""
        from labreport.images import cifar10 as data

        if self.profile == "smoke" and self.data_dir is None:
            return data.synthetic(n_train=SMOKE_IMAGES, n_val=100, n_test=200)
        return data.load(self.data_dir)

    @property
    def store(self) -> Store:
        """This profile's records; those of the images at hand, once these were read, have their labels."""
        data = self.__dict__.get("data")
        labels = {data.info.fingerprint: data.test.labels.numpy()} if data else {}
        return Store(paths.records(self.profile), labels)

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds that this profile asks of every recipe."""
        return tuple(range(self.seed, self.seed + SEEDS[self.profile]))

    @property
    def has_gpu(self) -> bool:
        """Whether this session trains on a GPU."""
        from labreport.training.device import best_device  # imports torch

        return (self.device or best_device().type).startswith("cuda")

    def recipe(self, recipe: str | Recipe) -> Recipe:
        """A recipe as this profile runs it, by its name or from your own `Recipe`.

        Raises:
            ValueError: there is no recipe of that name.
        """
        if isinstance(recipe, str):
            if recipe not in KNOWN:
                raise ValueError(f"no recipe is named {recipe!r}; there are {', '.join(KNOWN)}")
            recipe = KNOWN[recipe]
        return for_profile(recipe, self.profile)

    @property
    def reports_only(self) -> bool:
        """`paper` without named data: reports the records that are there, and never trains."""
        return self.profile == "paper" and self.data_dir is None

    @property
    def complete(self) -> bool:
        """Whether nothing is left to train: of every recipe all that can be had is stored.

        Pretrained weights that nobody has named are not asked for here, as that could be a download.
        """
        if self.reports_only:
            return True
        from labreport.networks.pretrained import is_named
        from labreport.running.plan import recipes_of

        wanted = recipes_of(self.profile, gpus=self.has_gpu)
        return not any(self.missing_seeds(recipe) for recipe in wanted if not recipe.pretrained or is_named())

    def missing_seeds(self, recipe: Recipe) -> list[int]:
        """The seeds of a recipe, as this profile runs it, that the store lacks.

        Raises:
            ValueError: there is no network of that name.
        """
        stored = self._stored(recipe)
        return [seed for seed in self.seeds if seed not in stored]

    def train(self, recipe: str | Recipe) -> list[RunRecord]:
        """The records of `recipe`, one a seed: taken from the store, or trained now.

        Where weights cannot be downloaded, or nothing may be trained (`reports_only`), the list can be short or empty,
        and a printed line says why.
        """
        given, recipe = recipe, self.recipe(recipe)
        if isinstance(given, Recipe) and not shortened(given, self.profile):
            self.whole.add(recipe.name)
        hints = () if self.reports_only else self._try(recipe)
        stored = self._stored(recipe)
        if self.reports_only:
            if not stored:
                self._miss(recipe.name, "no stored run, and no data folder was named")
            return self._given(stored.values())
        missing = [seed for seed in self.seeds if seed not in stored]
        look = self._watch(stored.values(), hints)
        if len(missing) > 1 and recipe.name in RECIPES and recipe == self.recipe(recipe.name):
            stored |= self._train_at_once(recipe, missing, look)
        for seed in missing:
            if seed not in stored and (record := self._train_one(recipe, seed, look)):
                stored[seed] = record
        return self._given(stored[seed] for seed in sorted(stored))

    def _given(self, records: Iterable[RunRecord]) -> list[RunRecord]:
        """The records, after noting those that started from other weights than torchvision's."""
        given = list(records)
        self._seen.extend(record for record in given if record.weights_caveat)
        return given

    def _try(self, recipe: Recipe) -> tuple[str, ...]:
        """Hints on the recipe's network, after a first batch.

        Raises:
            NetworkError: it cannot be trained.
        """
        from labreport.training.trial import input_shape, try_network

        num_classes = len(self.data.info.classes)
        return try_network(recipe, num_classes, input_shape(recipe, num_classes, self.data.train.images.shape[1:]))

    def _watch(self, stored: Iterable[RunRecord], hints: tuple[str, ...]) -> Watch:
        """Who is told of the trainings of a recipe, and now of those that the store has."""
        from labreport.lab.live import watch
        from labreport.training.train import stage_of

        look = watch()
        for record in stored:
            look(stage_of(record, hints))
        return look

    def _stored(self, recipe: Recipe) -> dict[int, RunRecord]:
        """What the store has of this recipe, by seed; in `paper` of more seeds than are asked for, where there are."""
        if self.reports_only:
            runs = reported(self.store.all(recipe.name), recipe, self._images[kin_of(recipe)])
            return {record.seed: record for record in runs}
        from labreport.networks import pretrained
        from labreport.training.identity import network_of
        from labreport.training.train import find

        network = network_of(recipe, len(self.data.info.classes))
        more = [record.seed for record in self.store.all(recipe.name)] if self.profile == "paper" else []
        seeds = sorted({*self.seeds, *more})
        weights = pretrained.named_weights() if recipe.pretrained else None
        found = (find(self.store, recipe, seed, self.data.info, network, weights) for seed in seeds)
        return {record.seed: record for record in found if record}

    @cached_property
    def _images(self) -> dict[str, str]:
        """The fingerprints of the images whose records are reported, where none were named, by kin."""
        return images_by_kin(self.store.all())

    def _train_at_once(self, recipe: Recipe, seeds: list[int], look: Watch) -> dict[int, RunRecord]:
        """The seeds that could be trained side by side, where that is faster; the others are left to `_train_one`."""
        from labreport.lab.widgets import live
        from labreport.running.local import jobs_for, this_machine
        from labreport.running.plan import carry_out, missing
        from labreport.training.identity import network_of
        from labreport.training.owner import in_progress
        from labreport.training.together import pays, train_together
        from labreport.training.train import result, stage_of, stem_of

        self.refuse_stand_in()
        if pays(recipe, self.device):
            records = train_together(recipe, self.data, seeds, profile=self.profile, device=self.device, watch=look)
            return {record.seed: record for record in records}
        if (jobs := jobs_for(recipe, self.device)) > 1:
            store, info = self.store, self.data.info
            network = network_of(recipe, len(info.classes))
            stems = [stem_of(recipe, info, seed, network, "", self.profile) for seed in seeds]

            def poll() -> None:
                for stage in filter(None, map(in_progress, stems)):
                    look(stage)

            say = {"say": lambda line: None} if live() else {}
            with this_machine(store, info, self.profile, self.data_dir, self.device, jobs, **say) as place:
                list(carry_out(missing([recipe], seeds, store, info, place, threads=1), place, poll if say else None))
        trained = {seed: record for seed, record in self._stored(recipe).items() if seed in seeds}
        for record in trained.values():
            look(dataclasses.replace(stage_of(record), ended=result(record)))
        return trained

    def refuse_stand_in(self) -> None:
        """The reference run's protocol says nothing about drawn shapes: `paper` trains on CIFAR-10 or not at all.

        Raises:
            ValueError: the profile is `paper` and the data is the stand-in.
        """
        if self.profile == "paper" and self.data.info.source == "synthetic stand-in":
            raise ValueError("the paper profile trains on CIFAR-10 only; name a folder that holds cifar-10-batches-py")

    def _train_one(self, recipe: Recipe, seed: int, look: Watch) -> RunRecord | None:
        from labreport.networks.pretrained import WeightsUnavailable
        from labreport.training.train import train

        self.refuse_stand_in()
        try:
            return train(recipe, self.data, seed, profile=self.profile, device=self.device, watch=look)
        except WeightsUnavailable as error:
            self._miss(recipe.name, str(error))
            return None

    def _miss(self, name: str, reason: str) -> None:
        self.missing[name] = reason
        print(f"{name}: not run; {reason}")

    def runs(self, delete: str = "") -> pd.DataFrame:
        """This profile's trainings, one's own first; before that, delete the one with the key `delete`.

        Raises:
            ValueError: there is no such training, it is under way, or it belongs to the reference run.
        """
        from labreport.lab import runs

        if delete:
            print(runs.delete(self.profile, delete))
        return runs.listed(self.profile)

    def records(self, recipes: Mapping[str, Recipe] = RECIPES) -> dict[str, list[RunRecord]]:
        """What this profile has of each of the suite's recipes, in the report's order; trains nothing."""
        return {name: self._given(self._stored(self.recipe(recipe)).values()) for name, recipe in recipes.items()}

    def reference(self, recipes: Mapping[str, Recipe] = RECIPES) -> dict[str, list[RunRecord]]:
        """The committed reference run: the `paper` records that came with the code, whatever this profile is."""
        store = Store(paths.REPOSITORY / "figures" / "paper" / "records")
        stored, found = store.all(), {}
        images = images_by_kin(stored)
        for name, recipe in recipes.items():
            found[name] = self._given(reported(stored, for_profile(recipe, "paper"), images[kin_of(recipe)]))
        return found

    def caveat_for(self, records_by_name: Mapping[str, Sequence[RunRecord]]) -> str:
        """What must be said beside results of these: of whose images they are, and how many have code that changed."""
        earlier = sum(self.of_earlier_code(records_by_name).values())
        total = sum(map(len, records_by_name.values()))
        note = f"{earlier} of {total} trainings by earlier code" if earlier else ""
        return "; ".join(filter(None, (caveat_of(records_by_name), note)))

    def of_earlier_code(self, records_by_name: Mapping[str, Sequence[RunRecord]]) -> dict[str, int]:
        """How many records of each of the suite's recipes were made by code that has changed since, where any were."""
        from labreport.training.identity import code_of

        earlier = {}
        for name, records in records_by_name.items():
            if not records or name not in KNOWN:
                continue
            recipe, classes = Recipe(**records[0].recipe), len(records[0].data.classes)
            codes = {ways: code_of(recipe, classes, ways) for ways in {record.ways for record in records}}
            if changed := sum(not record.is_of(codes[record.ways]) for record in records):
                earlier[name] = changed
        return earlier

    @cached_property
    def caveat(self) -> str:
        """What must be said beside every result of this session; empty for whole schedules on official data."""
        return "; ".join(filter(None, (self.data_caveat, PROFILE_CAVEATS[self.profile])))

    @cached_property
    def data_caveat(self) -> str:
        """What must be said of everything that shows this session's images or records."""
        return caveat_of(self.records()) if self.reports_only else self.data.caveat

    # --- showing ------------------------------------------------------------------------------------------------------

    def about(self, records: Sequence[RunRecord]) -> Lab:
        """This session as it speaks of these: of recipes that its profile leaves whole, without that caveat."""
        other = copy.copy(self)
        if records and {record.name for record in records} <= self.whole:
            other.__dict__["caveat"] = self.data_caveat
        return other

    def show(
        self, figure: Figure, name: str, caption: str, caveat: str | None = None, *, alt: str | None = None
    ) -> None:
        """Save a figure as figures/<profile>/<name>.svg, and display it with its caption.

        `caveat` stands in the figure's corner instead of the session's own, which is wrong for what is not its result.
        What bears the mark ‡ is explained there, too. `alt` says what is seen to those who do not see it; by default it
        is read off the drawing.
        """
        from IPython.display import HTML, display
        from matplotlib import pyplot as plt
        from matplotlib.text import Text

        from labreport.evidence.alt_text import describe
        from labreport.evidence.figures import following_the_page, style

        texts = (caption, *(text.get_text() for text in figure.findobj(Text)))
        caveat = self._with_note(caveat, *texts)
        with style():
            if figure.get_layout_engine():
                figure.draw_without_rendering()  # lays it out
                figure.set_layout_engine(None)  # once: it takes as long as drawing
            for legend in figure.legends:  # its anchor would follow the edge to which the file is cut
                anchor = legend.get_bbox_to_anchor().transformed(figure.transFigure.inverted())
                legend.set_bbox_to_anchor(anchor, figure.transFigure)
            if caveat:
                bottom = min(figure.get_tightbbox().y0 / figure.get_figheight(), 0.0)  # a legend may hang out
                figure.text(0.995, bottom - 0.01, caveat, ha="right", va="top", fontsize=6, color="0.45")
            alt = alt or describe(figure)
            svg = following_the_page(_rendered(figure))
        write_atomically(paths.figures(self.profile) / f"{name}.svg", svg)
        plt.close(figure)
        source = f"data:image/svg+xml;base64,{base64.b64encode(svg).decode()}"
        text = self._number("Figure", name) + html.escape(caption)
        display(
            HTML(
                f'<figure id="fig:{name}"><img src="{source}" alt="{html.escape(alt)}" style="{WIDTHS}">'
                f"<figcaption>{text}</figcaption></figure>"
            )
        )

    def table(
        self,
        frame: pd.DataFrame,
        name: str,
        caption: str,
        caveat: str | None = None,
        *,
        index: bool = False,
        beside: str = "",
    ) -> None:
        """Save a table as figures/<profile>/<name>.csv and .md, and display it with its caption.

        `caveat` follows the caption instead of the session's own; the HTML `beside` stands beside the table, or under
        it where there is no room.
        """
        from IPython.display import HTML, display

        folder = paths.figures(self.profile)
        caveat = self._with_note(caveat, caption, frame.to_csv(index=index))
        titled = f"{caption} ({caveat})" if caveat else caption
        write_atomically(folder / f"{name}.csv", frame.to_csv(index=index).encode())
        write_atomically(folder / f"{name}.md", f"{titled}\n\n{frame.to_markdown(index=index)}\n".encode())
        table = table_html(frame, name, titled, index=index, number=self._number("Table", name))
        side = f'<div style="display: flex; flex-wrap: wrap; gap: 0 2em; align-items: start">{table}{beside}</div>'
        display(HTML(side if beside else table))

    def _number(self, kind: str, name: str) -> str:
        """“Figure 2.3. ” as HTML: the chapter's third figure, and still the third when its cell is run again."""
        names = self._numbered.setdefault(kind, [])
        if name not in names:
            names.append(name)
        parts = filter(None, (self.chapter, names.index(name) + 1))
        return f'<b class="number">{kind} {".".join(map(str, parts))}.</b> '

    def say_once(self, text: str) -> None:
        """Display Markdown, unless this session has said it before."""
        if text not in self._said:
            self._said.add(text)
            self.say(text)

    def say(self, text: str) -> None:
        """Display Markdown: a finding, written from records."""
        from IPython.display import Markdown, display

        note = self._with_note("", text)
        display(Markdown(f"{text}\n\n{note}." if note else text))

    def _with_note(self, caveat: str | None, *shown: str) -> str:
        """The caveat, by default the session's own, and what ‡ means where something that is shown bears that mark."""
        from labreport.evidence.tables import MARK, weights_note

        caveat = self.caveat if caveat is None else caveat
        note = weights_note(self._seen) if any(MARK in text for text in shown) else ""
        return "; ".join(filter(None, (caveat, note)))


def table_html(frame: pd.DataFrame, name: str, caption: str, *, index: bool = False, number: str = "") -> str:
    """A table with its caption after `number`, which is HTML, and `tbl:<name>` to link to it.

    Columns of words are left-aligned. An erratum's row is what a link to `#erratum-E7` leads to.
    """
    columns = frame.reset_index() if index else frame
    words = {place for place in range(columns.shape[1]) if _is_of_words(columns.iloc[:, place])}

    def aligned(row: re.Match[str]) -> str:
        place = itertools.count()
        left = r'<\1 style="text-align: left">'
        return re.sub(r"<(t[dh])>", lambda cell: cell.expand(left) if next(place) in words else cell[0], row[0])

    body = re.sub(r"<tr.*?</tr>", aligned, frame.to_html(index=index, border=0, na_rep="–"), flags=re.DOTALL)
    body = re.sub(r"<tr>(\s*<td[^>]*>(E\d+)</td>)", r'<tr id="erratum-\2">\1', body)
    start = body.index(">") + 1
    return f'<table id="tbl:{name}"><caption>{number}{html.escape(caption)}</caption>{body[start:]}'


def _is_of_words(column: pd.Series) -> bool:
    cells = column.dropna().astype(str)
    cells = cells[~cells.isin(["–", "—"])]
    return 4 * cells.str.match(NUMBER).sum() <= 3 * len(cells)


def reported(records: Sequence[RunRecord], recipe: Recipe, images: str) -> list[RunRecord]:
    """The records of one recipe on the images with this fingerprint."""
    runs = [r for r in records if (r.name, r.recipe) == (recipe.name, recipe.settings())]
    return [r for r in runs if r.data.fingerprint == images and r.data.source != "synthetic stand-in"]


def images_by_kin(records: Sequence[RunRecord]) -> dict[str, str]:
    """For each group of recipes that are compared with each other, the fingerprint of the images to report.

    They are those of CIFAR-10 that most of the group was trained on, of equals the best verified copy: a table's rows
    are of the same images, also while a reference run on other images is not yet complete.
    """
    return {kin: _most_used_images([r for r in records if r.name in recipes]) for kin, recipes in KIN.items()}


def _most_used_images(records: Sequence[RunRecord]) -> str:
    recipes: dict[str, set[str]] = {}
    rank = {}
    for record in records:
        if record.data.source != "synthetic stand-in":
            recipes.setdefault(record.data.fingerprint, set()).add(record.name)
            rank[record.data.fingerprint] = -list(CAVEATS).index(record.data.source)
    return max(recipes, key=lambda images: (len(recipes[images]), rank[images]), default="")


def caveat_of(records_by_name: Mapping[str, Sequence[RunRecord]]) -> str:
    """What must be said of stored runs because of their data."""
    sources = {record.data.source for records in records_by_name.values() for record in records}
    return "; ".join(sorted(filter(None, (CAVEATS[source] for source in sources))))


def _check_device(device: str) -> None:
    import torch

    from labreport.training.device import DeviceError, check_device

    try:
        torch.empty(0, device=device)
        check_device(torch.device(device))
    except (RuntimeError, AssertionError) as error:
        if isinstance(error, DeviceError):
            raise ValueError(str(error)) from error
        raise ValueError(f"device {device!r} cannot be used here ({str(error).splitlines()[0]}); try cpu") from error


def _rendered(figure: Figure) -> bytes:
    """SVG, its images at 200 dots an inch; the same figure gives the same bytes."""
    buffer, box = io.BytesIO(), figure.get_tightbbox().padded(0.05)
    figure.savefig(buffer, format="svg", dpi=200, bbox_inches=box, metadata={"Date": None})
    return buffer.getvalue()
