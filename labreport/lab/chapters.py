"""What several notebooks show in the same way: a training, a system's results, a set of systems compared.

Each function takes the notebook's session and shows tables and figures through it. A system that could not be run is
said to be missing; nothing else happens.
"""

from __future__ import annotations

import html
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pandas as pd

from labreport.evidence import figures, statistics, tables
from labreport.evidence.claims import claims as judged_claims
from labreport.evidence.claims import ranking
from labreport.evidence.tables import RecordsByName
from labreport.facts.recipes import ABLATIONS, FOR_GPUS, RECIPES, UPSCALED, Recipe
from labreport.facts.reported import RESNET_LOG_TEXT, SYSTEMS
from labreport.lab.session import Lab
from labreport.lab.widgets import live
from labreport.records.record import RunRecord


def images(lab: Lab) -> None:
    """How many images each split has, and ten of each class, where the images themselves are at hand."""
    if lab.reports_only:
        lab.say("This report was made from stored records; the images themselves were not needed.")
        return
    data = lab.data
    lab.table(tables.data_table(data.info), "data", "The images of this run", lab.data_caveat)
    train = data.train
    lab.show(
        figures.image_grid(train.images.numpy(), train.labels.numpy(), data.info.classes),
        "images",
        "Training images, ten of each class.",
        lab.data_caveat,
    )


def train(lab: Lab, recipe: str | Recipe) -> list[RunRecord]:
    """Show a recipe, by name or your own, train it (or take its stored records), and show how that went.

    Returns the records.
    """
    given, recipe = recipe, lab.recipe(recipe)
    name = recipe.name
    caption = f"{recipe.title}: the recipe, and where each setting is from"
    lab.table(tables.recipe_table(recipe), f"{name}-recipe", caption, lab.data_caveat)
    records = lab.train(given)
    lab = lab.about(records)
    if records:
        images = "all training images; none were held out" if recipe.train_on_val else "training and validation images"
        smoothed = ", and the loss on smoothed targets" if recipe.label_smoothing else ""
        caption = (
            f"{tables.title(records)}: loss and accuracy on {images}, {tables.runs(records)}. Training values are "
            f"running means over the epoch, with augmentation and dropout where the recipe has them{smoothed}."
            + (" The bands reach from the lowest to the highest seed." if len(records) > 1 else "")
        )
        lab.show(figures.curves(records), f"{name}-curves", caption)
        caption = f"{tables.title(records)}: the training with seed {records[0].seed}, epoch by epoch"
        history = tables.history_table(records[0].history, rows=12)
        lab.table(tables.without_empty(history), f"{name}-history", caption)
    return records


def network(lab: Lab, recipe: str | Recipe) -> None:
    """The network of a recipe, on the table: layer by layer, beside its source."""
    from labreport.networks import layers, models
    from labreport.training.trial import built, input_shape

    recipe = lab.recipe(recipe)
    builder = models.find(recipe.model)
    model = built(builder, recipe.model, 10)
    shape = input_shape(recipe, 10, (3, 32, 32))
    found = layers.layers(model, shape)
    rows = [
        (
            layer.name,
            layer.kind,
            "×".join(map(str, layer.shape)),
            f"{layer.parameters:,}" if layer.parameters else tables.NONE,
            f"{layer.flops / 1e6:.2f}" if layer.flops else tables.NONE,
            "×".join(map(str, layer.sees)) if layer.sees else tables.NONE,
        )
        for layer in found
    ]
    total = f"{layers.count(model):,}", f"{sum(layer.flops for layer in found) / 1e6:.2f}"
    rows.append(("in all", "", "", *total, ""))
    frame = pd.DataFrame(rows, columns=["Layer", "Kind", "Output", "Parameters", "MFLOPs", "Sees"])
    caption = (
        f"{recipe.title}: the network, layer by layer, for one input of {'×'.join(map(str, shape))}. What happens "
        "between the layers is in its source. Sees: pixels of the image that reach the middle of the output"
    )
    source = code_html(layers.source(builder, model))
    lab.table(frame, f"{recipe.name}-network", caption, caveat="", beside=source)


def training_step(lab: Lab) -> None:
    """The step of gradient descent that every training here is made of, as it is in the code."""
    from IPython.display import HTML, display

    from labreport.training.steps import train_step

    display(HTML(code_html(inspect.getsource(train_step))))


def code_html(source: str) -> str:
    """Python source as HTML; nothing for none."""
    look = "overflow-x: auto; font-size: 85%; line-height: 1.35"
    return f'<pre class="python" style="{look}"><code>{html.escape(source)}</code></pre>' if source else ""


def compare(lab: Lab, systems: Mapping[str, str | Recipe]) -> dict[str, list[RunRecord]]:
    """Yours beside the report's: each recipe against the first, after training what is missing. Returns the records.

    `systems` maps labels to recipes, by name or your own: settings that differ, test accuracy with a paired test, and
    all curves in one picture.
    """
    recipes = {label: lab.recipe(recipe) for label, recipe in systems.items()}
    (first, reference), *others = recipes.items()
    same = [label for label, recipe in others if _nameless(recipe) == _nameless(reference)]
    for label in same:
        if live():
            lab.say(
                f"“{label}” is “{first}” so far: change a setting in the cell above, run it, and run this one again."
            )
    trained = {label: lab.train(recipe) for label, recipe in systems.items() if label not in same}
    present = {label: [replace(r, title=label) for r in records] for label, records in trained.items() if records}
    if len(present) < 2:
        if len(same) < len(others):
            lab.say("Fewer than two of these were trained here, so there is nothing to compare.")
        return trained
    lab = lab.about([record for records in present.values() for record in records])
    name = "-".join(["compare", *dict.fromkeys(records[0].name for records in present.values())])
    lab.table(tables.settings_table(present), f"{name}-settings", "What differs", lab.data_caveat)
    caption = f"Test accuracy, and its difference from “{first}” on the same images"
    lab.table(tables.ablation_table(present), name, caption)
    caption = "Loss and accuracy: training dashed, validation full."
    lab.show(figures.curves_together(present), f"{name}-curves", caption)
    return trained


def _nameless(recipe: Recipe) -> dict:
    return {name: value for name, value in recipe.settings().items() if name != "name"}


def seen_pixels(lab: Lab) -> None:
    """Which part of an image each of the report's own networks can see at all, by autograd."""
    from labreport.networks import models, shortcuts

    names = ("baseline", "first_optimization", "fine_tuned")
    seen = {RECIPES[name].title: shortcuts.seen_pixels(models.build(name), 32).numpy() for name in names}
    caption = "The pixels that reach a network's logits, found by autograd."
    lab.show(figures.seen_pixels(seen), "seen-pixels", caption, caveat="")  # random images, not the session's


def idle_weights(lab: Lab) -> None:
    """How much of ResNet-18 has nothing to do on small images, by autograd."""
    from labreport.networks import models, shortcuts

    model = models.build("resnet18")
    total, idle = sum(p.numel() for p in model.parameters()), shortcuts.idle_weights(model, 32)
    lab.say(
        f"Of its {total:,} parameters {idle:,} ({tables.percent(idle / total)}) lie in kernel taps that meet nothing "
        "but padding when an image has 32×32 pixels: they have no gradient and keep their first values. The training "
        "here leaves them out of its computations, which changes nothing but its time."
    )


def results(lab: Lab, records: Sequence[RunRecord]) -> None:
    """All that is measured of one system, beside what the lab report states of it."""
    if not records:
        lab.say("This system was not run here, so there is nothing to show.")
        return
    lab = lab.about(records)
    name, title = records[0].name, tables.title(records)
    reported = SYSTEMS.get(name)
    runs = tables.runs(records)
    summary = tables.without_empty(tables.summary_table(records, reported))
    compared = "reported and measured" if reported else "measured"
    lab.table(summary, f"{name}-summary", f"{title}: {compared}, {runs}")
    classes = tables.without_empty(tables.per_class_table(records, reported))
    lab.table(classes, f"{name}-classes", f"{title}: test accuracy of each class, {runs}")
    if reported and reported.per_class and tables.is_cifar10(records):
        caption = f"{title}: test accuracy of each class, reported and measured; bars: 95 % of single trainings."
        lab.show(figures.per_class(records, reported), f"{name}-classes-plot", caption)
    caption = f"{title}: confusion matrix on the test set, {runs}; a row is a true class."
    lab.show(figures.confusion(records), f"{name}-confusion", caption)
    caption = f"{title}: the surest right answer of each class, and the surest wrong answers, with confidence (seed "
    lab.show(figures.examples(records[0]), f"{name}-examples", f"{caption}{records[0].seed}).")


def listing(lab: Lab, systems: RecordsByName) -> None:
    """Section II's per-class listing beside the networks that it may be of."""
    seen = {name: records for name, records in systems.items() if records and tables.is_cifar10(records)}
    if not seen:
        lab.say("The listing is of CIFAR-10's test images, which no run here has seen.")
        return
    caption = "Section II's listing beside the networks that it may be of: where one more training lies, 95 %"
    frame = tables.listing_table(SYSTEMS["baseline"], seen)
    lab.table(frame, "listing", caption)
    fits = {title: frame[f"{title} is"] == "agrees" for title in map(tables.short_title, seen.values())}
    findings = (
        f"- {title}: {fit[1:].sum()} of the {len(fit) - 1} classes; {'the loss, too' if fit[0] else 'not the loss'}."
        for title, fit in fits.items()
    )
    lab.say("What one more training could have printed of it:\n\n" + "\n".join(findings))


def paired(lab: Lab, systems: RecordsByName, name: str) -> None:
    """Paired tests between neighbouring systems."""
    if sum(bool(records) for records in systems.values()) < 2:
        lab.say("Fewer than two of these systems were run, so there is nothing to compare.")
        return
    caption = (
        "Each system against the one before it, on the same test images: difference in accuracy; Holm's p is adjusted "
        "for the comparisons of this table. A system with one run is compared as that run, not as its recipe"
    )
    lab.table(tables.paired_tests(systems), f"{name}-paired", caption)


def comparison(lab: Lab, systems: RecordsByName) -> None:
    """Why something was not run, Table 1 as a picture, and this profile's numbers beside the reference run's."""
    for name, reason in lab.missing.items():
        lab.say(f"Not run: {lab.recipe(name).title}; {reason}.")
    reference = lab.reference() if lab.profile != "paper" else None
    caption = "Table 1 as a picture: reported accuracies, and measured ones; bars: where 95 % of single trainings lie."
    lab.show(figures.comparison(systems, reference), "comparison", caption)
    if reference and any(reference.values()):
        caption = "This run beside the reference run (the lab report's protocol on CIFAR-10; accuracy in %, mean ± sd)"
        lab.table(tables.profiles_table(systems, reference), "reference", caption)


def class_changes(lab: Lab, systems: RecordsByName, name: str = "class-changes") -> None:
    """The classes' accuracies from system to system, in words and as a picture."""
    if any(systems.values()):
        if findings := class_findings(systems):
            lab.say(f"The classes that gain most and least, with intervals over all ten at once:\n\n{findings}")
        caption = "Test accuracy of each class in %, and its change in points from the system to the left."
        lab.show(figures.class_changes(systems), name, caption)


def calibration(lab: Lab, systems: RecordsByName) -> None:
    """Confidence against accuracy, as a table and as reliability diagrams."""
    if any(systems.values()):
        lab.table(tables.calibration_table(systems), "calibration", "Confidence and accuracy on the test set")
        lab.show(figures.reliability(systems), "reliability", "Accuracy of the answers given with each confidence.")


def pretraining(lab: Lab, scratch: Sequence[RunRecord], pretrained: Sequence[RunRecord]) -> None:
    """What ImageNet weights buy: the same recipe from random ones and from these, beside what the report states."""
    if not scratch or not pretrained:
        lab.say("One of the two trainings was not run here, so there is nothing to compare.")
        return
    systems = {"resnet18": scratch, "resnet18_pretrained": pretrained}
    log = RESNET_LOG_TEXT if tables.is_cifar10(scratch) else ()
    caption = "The same recipe from random and from ImageNet weights: the seeds' mean, in a band from lowest to highest"
    caption += "; and the accuracies that the report's log prints." if log else "."
    lab.show(figures.histories(systems, log), "pretraining-curves", caption)
    paired(lab, systems, "pretraining")
    class_changes(lab, systems, "pretraining-classes")
    lab.say(beside_the_report(scratch, pretrained))


def beside_the_report(scratch: Sequence[RunRecord], pretrained: Sequence[RunRecord]) -> str:
    """How far the report's accuracy, which it gives for ImageNet weights, lies from what either start reaches."""
    if not tables.is_cifar10(scratch):
        return "The report's accuracy is CIFAR-10's, which these runs did not see."
    stated = tables.distinct(SYSTEMS["resnet18_pretrained"].stated("test accuracy"))[0]
    parts, gaps = [], {}
    for words, records in (("ImageNet", pretrained), ("random", scratch)):
        measured = statistics.measure(records, "test accuracy")
        gap = 100 * (stated.value - measured.value)
        gaps[words] = abs(gap)
        place = f"{abs(gap):.2f} points {'above' if gap > 0 else 'below'}"
        one = measured.one_training
        verdict = statistics.verdict(stated.value, one.low, one.high, stated.tolerance)
        relation = "where one more training may lie, beside" if verdict == "agrees" else place
        parts.append(f"{relation} the {tables.accuracy_text(measured)} from {words} weights{tables.mark(records)}")
    nearer = min(gaps, key=lambda words: gaps[words])
    lies = f"The report's {stated.printed} ({stated.place}) lies {parts[0]} and {parts[1]}"
    return f"{lies}: it is nearer to the training from {nearer} weights."


def upscaled(lab: Lab) -> None:
    """The pretrained network on larger images: what it loses to a stem that was made for 224 pixels."""
    own = lab.profile == "paper"
    larger = {name: lab.train(name) for name in UPSCALED} if own else lab.reference(UPSCALED)
    if not any(larger.values()):
        lab.say("The pretrained network was not run on larger images.")
        return
    both = {name: RECIPES[name] for name in ("resnet18", "resnet18_pretrained")}
    plain = lab.records(both) if own else lab.reference(both)
    where, caveat = "" if own else " in the reference run", lab.caveat_for(plain | larger)
    caption = "The linear heads on frozen features: the recipe at 32 pixels, and where each setting is from"
    lab.table(tables.recipe_table(UPSCALED["frozen_32"]), "frozen-recipe", caption, caveat)
    frozen = {name: records for name, records in larger.items() if name.startswith("frozen_")}
    trained = {name: records for name, records in (plain | larger).items() if name.startswith("resnet18_pretrained")}
    caption = f"ResNet-18{where}: the images enlarged before the network sees them; frozen, or trained as a whole"
    lab.table(tables.upscaled_table(frozen | trained), "upscaled", caption, caveat)
    groups = {
        "ImageNet weights frozen, linear head": frozen,
        "from ImageNet weights": trained,
        "from random weights": {"resnet18": plain["resnet18"]},
    }
    (stated, *_) = tables.distinct(SYSTEMS["resnet18_pretrained"].stated("test accuracy"))
    reported = stated.value if all(tables.is_cifar10(records) for records in larger.values() if records) else None
    caption = f"Test accuracy{where} against the size of the images that ResNet-18 sees, with 95 % intervals."
    lab.show(figures.accuracy_by_size(groups, reported), "upscaled-plot", caption, caveat)
    lab.say("\n".join(map(stem_loss, (frozen, trained))))


def stem_loss(by_size: RecordsByName) -> str:
    """What one network gains from the smallest to the largest images that it was run on, as a line of a list.

    Enlarging adds nothing to an image. So the errors that it removes, net of new ones, were due to a network made for
    larger images being given these.
    """
    present = sorted((records for records in by_size.values() if records), key=tables.pixels)
    if len(present) < 2 or not tables.same_images(present[0], present[-1]):
        return ""
    small, large = present[0], present[-1]
    before, after = (statistics.measure(records, "test accuracy").value for records in (small, large))
    result = statistics.paired_test(statistics.answers(large), statistics.answers(small))
    share = (after - before) / (1 - before)
    text = (
        f"- {tables.title(small)} → {tables.title(large)}: {tables.percent(before)} → {tables.percent(after)}, "
        f"{tables.signed(100 * result.difference)} points ({tables.point_range(result)})."
    )
    gone = f" That is a net {100 * share:.0f} % fewer errors than at {tables.pixels(small)} pixels."
    return text + gone * (result.low > 0)


def orthogonalization(lab: Lab) -> None:
    """What Muon's iteration does to singular values, drawn by the code that trains."""
    import torch

    from labreport.training.optimizers import orthogonalize

    values = torch.linspace(0.0, 1.0, 201)
    # A diagonal matrix's singular values are its entries; scaled back, since the iteration divides by the norm first.
    norm = values.norm()
    curves = {steps: orthogonalize(torch.diag(values / norm), steps=steps).diagonal().float() for steps in (1, 2, 3, 5)}
    lab.show(
        figures.singular_values((values / norm).numpy(), {steps: curve.numpy() for steps, curve in curves.items()}),
        "orthogonalization",
        "Evenly spaced singular values before and after the Newton–Schulz steps of Muon, in bfloat16 (three are used).",
        caveat="",
    )


def on_a_gpu(lab: Lab, name: str) -> None:
    """A recipe that is too much for a CPU: trained by `paper` on a GPU, shown where its records are, else not run."""
    recipe, records = FOR_GPUS[name], lab.records(FOR_GPUS)[name]
    if lab.profile == "paper" and not lab.reports_only and lab.has_gpu:
        records = train(lab, name)
    if records:
        results(lab, records)
    else:
        lab.say(f"{recipe.title} was not run: it needs a GPU and the profile `paper`.")


def ablation(lab: Lab) -> None:
    """What each ingredient of the fast recipe buys: trained by the profile `paper`, else from the reference run."""
    own = lab.profile == "paper"
    runs = {name: lab.train(name) for name in ABLATIONS} if own else lab.reference(ABLATIONS)
    present = [records for records in runs.values() if records]
    if not runs["fast94_short"] or len(present) < 2:
        lab.say("The ablation was not run.")
        return
    where, caveat = "" if own else " in the reference run", lab.caveat_for(runs)
    n = min(len(records) for records in present)
    caption = f"The fast recipe cut to three epochs{where}, with one thing changed at a time, n = {n} or more"
    lab.table(tables.ablation_table(runs), "ablation", caption, caveat)
    lab.show(figures.ablation(runs), "ablation-plot", f"{caption}: change of test accuracy, 95 % intervals.", caveat)
    pairs = ((r.val_score, r.history[-1].val_accuracy) for records in present for r in records)
    gains = [100 * (averaged.accuracy - plain) for averaged, plain in pairs if averaged and plain is not None]
    lab.say(
        f"The test-time average adds {tables.signed(float(np.mean(gains)))} points of validation accuracy on average "
        f"of all {len(gains)} runs ({tables.signed(min(gains))} to {tables.signed(max(gains))})." + under(caveat)
    )


def under(caveat: str) -> str:
    """The conditions of a finding as the sentence that follows it, or nothing."""
    return f" Conditions: {caveat}." if caveat else ""


def race(lab: Lab) -> None:
    """Validation accuracy over the seconds of training, and two systems after the same time, in the reference run.

    Seconds are compared on one machine, and accuracies on the same images: what has no such training is left out.
    """
    own = lab.profile == "paper"
    runs = (lab.records if own else lab.reference)(RECIPES | {"fast94_short": ABLATIONS["fast94_short"]})
    # A head on ready-made features starts after another training; a recipe trained on all images has no such curve.
    with_curves = {
        name: records
        for name, records in runs.items()
        if records and name != "dnn_softmax" and records[0].history[-1].val_accuracy is not None
    }
    shown = on_one_machine(with_curves)
    if not shown:
        return
    where = "" if own else " in the reference run"
    machine = next(iter(shown.values()))[0].environment
    on = f"{machine.device}, {tables.counted(machine.threads, 'thread')}"
    caption = f"Validation accuracy against training time{where}, the first seed that each has on one machine ({on})."
    lab.show(figures.accuracy_over_time(shown), "accuracy-over-time", caption, lab.caveat_for(shown))
    if left_out := [tables.short_title(records) for name, records in with_curves.items() if name not in shown]:
        lab.say(f"Left out, since no seed was trained on that machine and those images: {', '.join(left_out)}.")
    if shown.get("resnet18") and shown.get("fast94_short"):
        both = {name: shown[name] for name in ("resnet18", "fast94_short")}
        lab.say(equal_time(*both.values()) + under(lab.caveat_for(both)))


def on_one_machine(runs: RecordsByName) -> dict[str, list[RunRecord]]:
    """Of each system the records from one kind of machine and the same images: those that most systems have."""
    groups: dict[tuple, dict[str, list[RunRecord]]] = {}
    for name, records in runs.items():
        for record in records:
            kinds = {(s.environment.device, s.environment.threads) for s in record.stretches}
            if len(kinds) == 1:  # a resumed training may have moved
                groups.setdefault((record.data.fingerprint, *kinds), {}).setdefault(name, []).append(record)
    return max(groups.values(), key=len, default={})


def equal_time(first: Sequence[RunRecord], second: Sequence[RunRecord]) -> str:
    """The validation accuracies of two systems after the training time of the shorter one, means over seeds."""
    seconds = min(tables.training_seconds(first), tables.training_seconds(second))

    def reached(records: Sequence[RunRecord]) -> str:
        accuracies = []
        for record in records:
            ends = np.cumsum([row.seconds for row in record.history])
            done = max(int((ends <= seconds * 1.02).sum()), 1)  # seeds differ by a percent or so
            accuracies.append(val_accuracies(record)[done - 1])
        return f"{tables.title(records)} {tables.percent(float(np.mean(accuracies)))} (n = {len(accuracies)})"

    return (
        f"After {tables.duration(seconds)} of training each, as long as the shorter of the two took, the validation "
        f"accuracies are: {reached(first)}, {reached(second)}."
    )


def claims(systems: RecordsByName, *beginnings: str) -> str:
    """The claims that begin with any of these words, as a Markdown list with what decides them."""
    chosen = [claim for claim in judged_claims(systems) if claim.text.startswith(beginnings)]
    return "\n".join(f"- {claim.sentence}" for claim in chosen)


def finding(lab: Lab, records: Sequence[RunRecord], name: str | None = None) -> str:
    """One system's result in a few sentences, beside the report's; `name` is the recipe's, where it may be missing."""
    if not records:
        return f"{lab.recipe(name).title if name else 'This system'} was not run here."
    lab = lab.about(records)
    measured = statistics.measure(records, "test accuracy")
    title, conditions = tables.title(records), under(lab.caveat)
    text = (
        f"**{title}** reaches {tables.accuracy_text(measured)} on the test set ({tables.runs(records)}), "
        f"with {records[0].parameters:,} parameters, after {tables.duration(tables.training_seconds(records))} of "
        f"training a run on {' and '.join(dict.fromkeys(record.environment.device for record in records))}."
    )
    reported = SYSTEMS.get(records[0].name)
    statements = reported.stated("test accuracy") if reported and tables.is_cifar10(records) else ()
    for statement in tables.distinct(statements):
        relation = {"agrees": "agrees with", "higher": "is higher than", "lower": "is lower than"}[
            statistics.verdict(statement.value, *measured.one_training[:2], statement.tolerance)
        ]
        text += f" That {relation} the report's {statement.printed} ({statement.place})."
    return text + conditions


def class_findings(systems: RecordsByName) -> str:
    """From each system to the next: the class that gains most and the one that gains least or loses, as a list.

    The intervals are simultaneous over the classes (Bonferroni), since the two classes are chosen by their gains.
    """
    lines = []
    for before, after in pairwise(records for records in systems.values() if records):
        if not tables.same_images(before, after):
            continue
        classes, labels = before[0].data.classes, before[0].predictions.labels
        right_before, right_after = statistics.answers(before), statistics.answers(after)
        level = 1 - 0.05 / len(classes)
        tests = [
            statistics.paired_test(right_after[:, labels == k], right_before[:, labels == k], level)
            for k in range(len(classes))
        ]
        best, worst = (pick(range(len(classes)), key=lambda k: tests[k].difference) for pick in (max, min))
        most, least = (
            f"{classes[k]} {tables.signed(100 * tests[k].difference, 1)} points ({tables.point_range(tests[k])})"
            for k in (best, worst)
        )
        lines.append(f"- {tables.short_title(before)} → {tables.short_title(after)}: most {most}, least {least}.")
    return "\n".join(lines)


def calibration_findings(systems: RecordsByName) -> str:
    """How sure each system is and how often it is right, as a list."""
    lines = []
    for records in (records for records in systems.values() if records):
        says, right, error = statistics.calibration(records)
        points = f"{100 * abs(says - right):.1f}"
        side = (
            f"{points} points {'too sure' if says > right else 'not sure enough'}"
            if float(points)
            else "as sure as right"
        )
        lines.append(
            f"- {tables.short_title(records)}: on average {tables.percent(says)} sure, and right in "
            f"{tables.percent(right)}: {side}; "
            f"calibration error {tables.percent(error)}."
        )
    return "\n".join(lines)


def val_accuracies(record: RunRecord) -> list[float]:
    """Of every epoch; nan where the validation images were trained on."""
    return [np.nan if row.val_accuracy is None else row.val_accuracy for row in record.history]


def peak(records: Sequence[RunRecord]) -> str:
    """Where each run's validation accuracy was highest, and what was left of it at the end."""
    lines = []
    for record in records:
        accuracies = val_accuracies(record)
        best, last = record.history[int(np.argmax(accuracies))], record.history[-1]
        lines.append(
            f"- seed {record.seed}: highest in epoch {best.epoch} ({tables.percent(max(accuracies))}), "
            f"{tables.percent(accuracies[-1])} after epoch {last.epoch}; from the one to the other the validation "
            f"loss goes from {best.val_loss:.3f} to {last.val_loss:.3f}, the training accuracy from "
            f"{tables.percent(best.train_accuracy)} to {tables.percent(last.train_accuracy)}."
        )
    return "\n".join(lines)


def at_equal_epochs(before: Sequence[RunRecord], after: Sequence[RunRecord]) -> str:
    """Two systems' validation accuracies after as many epochs as the shorter training has, and at their best."""
    if not before or not after:
        return "One of the two was not run here."
    epochs = min(len(record.history) for record in (*before, *after))

    def text(records: Sequence[RunRecord]) -> str:
        histories = [val_accuracies(record) for record in records]
        then = float(np.mean([history[epochs - 1] for history in histories]))
        best = float(np.mean([max(history) for history in histories]))
        return (
            f"{tables.short_title(records)} {tables.percent(then)}, at its best epoch {tables.percent(best)} "
            f"({len(records[0].history)} epochs in all, n = {len(records)})"
        )

    return f"After {epochs} epochs the validation accuracies are: {text(before)}; {text(after)}."


def conclusion(lab: Lab, systems: RecordsByName) -> str:
    """The whole report in sentences: the ranking, which claims hold, how calibrated all are."""
    present = {name: records for name, records in systems.items() if records}
    if not present:
        return "No system was run, so there is nothing to conclude."
    judged = judged_claims(systems)
    kinds = {
        "holds": ("holds", "hold"),
        "does not hold": ("does not", "do not"),
        "undecided": ("stays undecided", "stay undecided"),
    }
    found = {kind: [claim for claim in judged if claim.verdict == kind] for kind in kinds}
    counts = ", ".join(
        f"{len(found[kind])} {one if len(found[kind]) == 1 else more}" for kind, (one, more) in kinds.items()
    )
    parts = [
        ranking(systems),
        f"Of the report's {len(judged)} claims, {counts}:",
    ]
    parts.append("\n".join(f"- {claim.sentence}" for kind in kinds for claim in found[kind]))
    parts += ["How far confidence is from accuracy:", calibration_findings(systems)]
    if lab.caveat:
        parts.append(f"All of it under these conditions: {lab.caveat}.")
    return "\n\n".join(parts)
