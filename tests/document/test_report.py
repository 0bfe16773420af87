"""From notebooks to the two documents, with small notebooks in the place of the real ones."""

import dataclasses
import html
import json
import os
import re
import zipfile
from html.parser import HTMLParser

import nbformat
import pytest
import typst
from fake_notebooks import FIGURE, SVG, html_output, paper_session, set_all
from fake_records import OTHER_WEIGHTS, fake_record, fake_suite
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from labreport import paths
from labreport.document import cover, errors, report
from labreport.evidence import tables
from labreport.evidence.claims import claims
from labreport.lab.session import Lab

PARAMETERS_CELL = "profile = None\nseed = 0\ndata_dir = None\ndevice = None"
TABLE = (
    '<table id="tbl:{0}"><caption>{1}</caption><thead><tr><th>recipe</th><th>test accuracy</th></tr></thead>'
    "<tbody><tr><td>baseline</td><td>66.2 %</td></tr><tr><td>fine_tuned</td><td>78.9 %</td></tr></tbody></table>"
)
TEXT = r"""# Convolution

## Question

Here $z_{11} = \sum_a w_a x_a$, and see [the figure](#fig:one) and [a lost one](#fig:lost).

$$\begin{aligned}L &= -\log p_t \\ &= \lVert y\rVert\end{aligned}$$

| a | b |
|---|---|
| 1 | 2 |
"""


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("LABREPORT_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def executed(*outputs, text=TEXT):
    """A notebook as papermill leaves it."""
    return new_notebook(cells=[new_markdown_cell(text), new_code_cell("secret = 1", outputs=list(outputs))])


def write_notebook(path, *sources, parameters=PARAMETERS_CELL):
    first = new_code_cell(parameters, metadata={"tags": ["parameters"]})
    cells = [new_markdown_cell(f"# {path.stem}"), first, *map(new_code_cell, sources)]
    nbformat.write(new_notebook(cells=cells), path)
    return path


class Page(HTMLParser):
    """The tags of a page, with what they would load."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.loaded, self.ids = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.tags.append(tag)
        self.ids.append(attrs.get("id"))
        if tag in ("script", "link", "img", "iframe", "source"):
            self.loaded.append(attrs.get("src") or attrs.get("href") or "")


def test_build_report_runs_the_notebooks_in_order_with_the_session_s_parameters(tmp_path, capfd):
    seen = tmp_path / "seen.jsonl"
    write = (
        "import json, os\n"
        f"with open({str(seen)!r}, 'a') as file:\n"
        "    print(json.dumps([profile, seed, data_dir, device, os.environ['LABREPORT_HEADLESS']]), file=file)"
    )
    notebooks = [write_notebook(tmp_path / f"{name}.ipynb", write) for name in ("01_one", "02_two")]
    built = report.build_report("smoke", device="cpu", seed=3, notebooks=notebooks)

    assert [json.loads(line) for line in seen.read_text().splitlines()] == [["smoke", 3, None, "cpu", "1"]] * 2
    out, err = capfd.readouterr()
    assert "Black" not in err + out  # papermill's remark on a formatter that nobody needs
    assert "\r" not in err + out
    assert re.findall(r"\[\d/\d\] \w+ … \d+ s", out) == [
        line for line in out.splitlines() if line.startswith("[") and line.endswith(" s")
    ]
    assert re.findall(r"\[(\d/\d)\] (\w+) … \d+ s", out) == [("1/2", "01_one"), ("2/2", "02_two")]
    assert built.pdf.read_bytes().startswith(b"%PDF-")
    assert (built.figures / "report.pdf").read_bytes() == built.pdf.read_bytes()
    assert "synthetic stand-in" in built.html.read_text().lower()


MEET = """
import os, pathlib, time
assert os.environ["OMP_NUM_THREADS"] == "1", "each of two kernels would take both cores"
pathlib.Path({mine!r}).touch()
end = time.monotonic() + 60
while not pathlib.Path({other!r}).exists():
    assert time.monotonic() < end, "the other notebook did not run meanwhile"
    time.sleep(0.1)
"""


@pytest.mark.skipif(os.cpu_count() < 2, reason="needs two cores")
def test_with_nothing_to_train_notebooks_run_at_once_and_stay_in_order(tmp_path, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS")
    paper_session()
    here, there = str(tmp_path / "here"), str(tmp_path / "there")
    first = write_notebook(tmp_path / "01_one.ipynb", MEET.format(mine=here, other=there))
    second = write_notebook(tmp_path / "02_two.ipynb", MEET.format(mine=there, other=here))
    text = report.build_report("paper", notebooks=[first, second]).html.read_text()
    assert text.rindex("01_one") < text.rindex("02_two")


def test_a_stopped_notebook_is_one_sentence_and_is_kept(tmp_path, capfd):
    bad = write_notebook(tmp_path / "02_bad.ipynb", "print('before')", "raise ValueError('the kernel\\nis too large')")
    with pytest.raises(errors.ReportError) as stopped:
        report.build_report("smoke", notebooks=[bad])
    said = str(stopped.value)
    assert said.startswith(
        "02_bad.ipynb stopped in cell 4 (raise ValueError('the kernel\\nis too large')) with ValueError: "
    )
    assert "\n" not in said
    kept = nbformat.read(paths.build("smoke") / "02_bad.ipynb", as_version=4)
    assert "before\n" in [output.get("text") for cell in kept.cells for output in cell.get("outputs", ())]


def test_a_parameters_cell_that_is_no_python_stops_before_anything_runs(tmp_path):
    good = write_notebook(tmp_path / "01_good.ipynb")
    odd = write_notebook(tmp_path / "02_odd.ipynb", parameters="profile = ")
    with pytest.raises(errors.ReportError, match=r"02_odd\.ipynb.*is not Python \(line 1"):
        report.build_report("smoke", notebooks=[good, odd])
    assert not (paths.build("smoke") / "01_good.ipynb").exists()


def test_a_bad_parameter_value_stops_before_anything_runs(tmp_path):
    with pytest.raises(ValueError, match="'fast'"):
        report.build_report("fast", notebooks=[tmp_path / "missing.ipynb"])


def test_the_web_page_needs_no_network():
    built = set_all([executed(html_output(FIGURE.format("one", "A picture")))], paper_session(), ["html"])
    text = built.html.read_text()
    page = Page(text)
    assert page.tags.count("math") == 2
    assert "url(data:font/woff2;base64," in text
    assert f"data:image/svg+xml;base64,{SVG}" in text
    assert "script" not in page.tags
    assert [source for source in page.loaded if not source.startswith("data:")] == []


def test_documents_show_outputs_but_no_code_messages_or_widgets():
    widget = new_output("display_data", {"application/vnd.jupyter.widget-view+json": {}, "text/plain": "IntSlider()"})
    bar = new_output("stream", name="stderr", text="100%|████|")
    message = new_output("stream", name="stdout", text="written to the runner")
    said = new_output("display_data", {"text/markdown": "A **finding** of 66 %.", "text/plain": "<Markdown>"})
    text = set_all([executed(widget, bar, message, said)], paper_session(), ["html"]).html.read_text()
    assert "<strong>finding</strong>" in text
    assert [word for word in ("secret", "IntSlider", "████", "to the runner", "&lt;Markdown&gt;") if word in text] == []


def test_headings_of_several_notebooks_get_different_anchors():
    built = set_all([executed(), executed()], paper_session(), ["html"])
    ids = [name for name in Page(built.html.read_text()).ids if name]
    assert len(ids) == len(set(ids))


def test_captioned_figures_and_tables_are_numbered_in_order_in_the_pdf():
    outputs = [html_output(FIGURE.format(name, f"Picture {name}")) for name in ("one", "two")]
    outputs += [html_output(TABLE.format("t", "Accuracies"))]
    set_all([executed(*outputs)], paper_session(), ["pdf"])
    main = paths.build("paper") / "report.typ"
    found = json.loads(typst.query(main, "figure", ignore_system_fonts=True))
    captioned = [(figure["kind"], figure["label"]) for figure in found if figure.get("caption")]
    assert captioned == [
        ("table", "<tbl:summary>"),
        ("image", "<fig:one>"),
        ("image", "<fig:two>"),
        ("table", "<tbl:t>"),
        ("table", "<tbl:records>"),
    ]


def test_figures_and_tables_are_numbered_by_chapter_and_alike_in_every_format():
    """As in the notebooks, whose own numbers are not repeated; what has no caption has no number."""
    own = FIGURE.format("one", '<b class="number">Figure 1.1.</b> A picture')
    first = [own, FIGURE.format("plain", ""), TABLE.format("t", "Accuracies")]
    second = [FIGURE.format(name, f"Picture {name}") for name in ("two", "three")]
    chapters = [executed(*map(html_output, outputs)) for outputs in (first, second)]
    built = set_all(chapters, paper_session(), ["pdf", "html", "docx", "tex"]).documents
    wanted = {
        *(("Figure", number) for number in ("1.1", "2.1", "2.2")),
        *(("Table", number) for number in ("S.1", "1.1", "A.1")),
    }
    numbered = r">(Figure|Table).(\w\.\d)\.<"
    assert re.findall(numbered, built["html"].read_text()) == re.findall(numbered, word_text(built["docx"]))
    assert set(re.findall(numbered, built["html"].read_text())) == wanted
    tex = re.findall(r"renewcommand\{\\the(\w+)\}\{(.*?)\}", built["tex"].read_text())
    assert {(kind.title(), number) for kind, number in tex if kind in ("figure", "table")} == wanted
    pdf = re.findall(r'numbering: _ => "(.*?)"\)', (paths.build("paper") / "report.typ").read_text())
    assert sorted(pdf) == sorted(number for _, number in wanted)


def word_text(path):
    with zipfile.ZipFile(path) as file:
        return file.read("word/document.xml").decode()


def test_the_contents_name_the_page_on_which_a_chapter_begins():
    chapter = executed(html_output(FIGURE.format("one", "A picture")), text="# Chapter\n\n## Section")
    set_all([chapter, executed(text="# Another")], paper_session(), ["pdf"])
    main = paths.build("paper") / "report.typ"
    marks = "\n#context [#metadata(query(heading).map(it => (repr(it.body), it.location().page()))) <pages>]\n"
    main.write_text(main.read_text() + marks)
    (pages,) = json.loads(typst.query(main, "<pages>", field="value", ignore_system_fonts=True))
    chapters = {title.strip("[]"): page for title, page in pages}
    assert (chapters["Contents"], chapters["Chapter"], chapters["Section"], chapters["Another"]) == (2, 4, 4, 5)


def test_figures_are_set_before_the_next_chapter_begins():
    set_all([executed(text="# Chapter\n\n## Section\n\n### Part")], paper_session(), ["pdf"])
    main = (paths.build("paper") / "report.typ").read_text()
    assert "#place.flush()\n\n#pagebreak(weak: true)\n\n= Chapter" in main or (
        "#place.flush()\n#pagebreak(weak: true)\n= Chapter" in main
    )
    assert "flush()\n== Section" not in main


def test_links_to_what_is_not_there_become_text():
    built = set_all([executed(html_output(FIGURE.format("one", "A picture")))], paper_session(), ["html"])
    text = built.html.read_text()
    assert '<a href="#fig:one">the figure</a>' in text
    assert "a lost one" in text
    assert "#fig:lost" not in text


def test_columns_of_numbers_are_aligned_to_the_right():
    built = set_all([executed(html_output(TABLE.format("t", "Accuracies")))], paper_session(), ["html"])
    cells = re.findall(r'<td style="text-align: (\w+);">([^<]+)', built.html.read_text())
    assert ("right", "66.2\xa0%") in cells  # in one line
    assert ("left", "baseline") in cells


def test_wide_tables_get_shares_of_the_page_that_add_up_to_it():
    heads = "".join(f"<th>heading {i}</th>" for i in range(8))
    cells = "".join(f"<td>cell {i} with a good many words in it</td>" for i in range(8))
    table = f"<table><thead><tr>{heads}</tr></thead><tbody><tr>{cells}</tr></tbody></table>"
    set_all([executed(html_output(table))], paper_session(), ["pdf"])
    shares = re.findall(
        r"([\d.]+)%", re.search(r"columns: \((.*%.*)\)", (paths.build("paper") / "report.typ").read_text())[1]
    )
    assert len(shares) == 8
    assert sum(map(float, shares)) == pytest.approx(100, abs=0.1)


@pytest.mark.parametrize(
    ("source", "notice"),
    [
        ("official", None),
        ("unverified copy", "Unverified copy of CIFAR-10."),
    ],
)
def test_the_title_page_names_profile_data_device_date_and_versions(source, notice):
    text = set_all([executed()], paper_session(source), ["html"]).html.read_text()
    facts = dict(re.findall(r"<dt>(.*?)</dt><dd>(.*?)</dd>", text.split("<h1")[1]))
    assert facts["Profile"].startswith("paper")
    assert "0123456789abcdef" in facts["Data"]
    assert facts["Conditions"] == "A processor; 1 thread a training; fp32; PyTorch 2.0."
    assert facts["Measured"] == "1 January 2026"
    assert "standard deviation over (n) seeds" in facts["Numbers"]
    assert facts["Versions"].startswith("Python 3.11, labreport ")
    said = re.findall(r'class="notice"><strong>(.*?)</strong>', text)
    assert said == [*filter(None, [notice]), "Measured by earlier code."]  # no code has made these records


def test_only_the_committed_run_has_conditions_that_no_record_tells(monkeypatch):
    records = [fake_record("baseline"), fake_record("resnet18")]
    for profile in ("quick", "paper"):
        assert cover.conditions(Lab.open(profile), records) == "A processor; 1 thread a training; fp32; PyTorch 2.0."
    monkeypatch.setenv("LABREPORT_HOME", str(paths.REPOSITORY))
    assert cover.conditions(Lab.open("paper"), records).endswith("their times are upper bounds.")


def test_conditions_are_those_of_every_stretch():
    record = fake_record("baseline")
    moved = dataclasses.replace(record.environment, device="Another processor")
    stretches = (dataclasses.replace(record.stretches[0], environment=moved), *record.stretches)
    said = cover.conditions(Lab.open("quick"), [dataclasses.replace(record, stretches=stretches)])
    assert said.startswith("A processor / Another processor; ")


def test_the_summary_says_how_numbers_and_claims_fare():
    lab, suite = paper_session("unverified copy"), fake_suite(seeds=2)
    text = cover.summary(lab, suite)
    assert "leaves the order open): Fast recipe (ours)" in html.unescape(text)
    measured = tables.table1(suite)["Verdict"].value_counts()
    assert f"agrees for {measured['agrees']} (" in text
    for claim in claims(suite):
        assert f"<li>{html.escape(f'{claim.text} ({claim.place})')}: <strong>{claim.verdict}</strong></li>" in text
    assert text.count("unverified copy of CIFAR-10") == 2  # beside the table, and under the claims


def test_the_cover_and_the_summary_explain_the_mark_of_other_weights():
    suite = fake_suite(seeds=2) | {"resnet18_pretrained": [fake_record("resnet18_pretrained", weights=OTHER_WEIGHTS)]}
    lab, note = paper_session("official"), "‡ other ImageNet weights: trained at home"
    assert cover.title_page(lab, suite)["notices"][0] == f"**{note}.**"
    text = cover.summary(lab, suite)
    assert "ResNet (pretrained) ‡" in text
    assert text.count(note) == 2  # beside the table, and under the claims
    appendix = cover.records_appendix([record for records in suite.values() for record in records])
    assert "resnet18_pretrained, seed 0 ‡" in appendix and note in appendix


def test_weights_that_cannot_be_used_are_told_before_anything_is_run(home, tmp_path, monkeypatch):
    monkeypatch.setenv("LABREPORT_WEIGHTS", str(tmp_path / "gone.pth"))
    write_notebook(tmp_path / "01_any.ipynb", "raise SystemExit('run')")
    with pytest.raises(ValueError, match=r"gone\.pth, which does not exist"):
        report.build_report("smoke", notebooks=[tmp_path / "01_any.ipynb"])
    assert not home.exists()


def test_the_summary_of_the_stand_in_judges_nothing_about_cifar10():
    text = cover.summary(Lab.open("smoke"), fake_suite(1, source="synthetic stand-in", n_test=500))
    assert "None of the report’s accuracies can be compared" in text
    assert "not judged" in text
    assert text.count("synthetic stand-in, not CIFAR-10; smoke test") == 2


def test_without_records_the_summary_says_so():
    text = set_all([executed()], Lab.open("paper"), ["html"]).html.read_text()
    assert "there is nothing to sum up" in text
    assert "none was recorded for this profile" in text


def test_the_same_records_give_the_same_pdf():
    first = set_all([executed()], paper_session(), ["pdf"]).pdf.read_bytes()
    assert set_all([executed()], paper_session(), ["pdf"]).pdf.read_bytes() == first


def test_a_formula_that_cannot_be_set_is_named_and_the_rest_is_built(capsys):
    bad = executed(text="# Title\n\n$$\\nosuchmacro{x}{$$ and $x_1$")
    text = set_all([bad], paper_session(), ["html"]).html.read_text()
    assert "cannot be set: 01_chapter.ipynb, cell 1: the formula \\nosuchmacro{x}{" in capsys.readouterr().err
    assert "<code>\\nosuchmacro{x}{</code>" in text
    assert Page(text).tags.count("math") == 1


def test_the_pdf_says_and_keeps_that_it_is_for_everyone():
    """typst checks PDF/UA-1 itself: a picture or formula without an alternative text would stop it."""
    built = set_all([executed(html_output(FIGURE.format("one", "A picture")))], paper_session(), ["pdf"])
    assert b"pdfuaid" in built.pdf.read_bytes()
    main = (paths.build("paper") / "report.typ").read_text()
    assert r'math.equation(alt: "z_{11} = \\sum_a w_a x_a")' in main
    broken = main.replace("set math.equation(alt:", "set math.equation(supplement:")
    (paths.build("paper") / "report.typ").write_text(broken)
    with pytest.raises(typst.TypstError, match="missing alt text"):
        typst.compile(paths.build("paper") / "report.typ", pdf_standards=["ua-1"], ignore_system_fonts=True)


def test_what_the_text_names_is_a_link():
    errata = TABLE.format("errata", "All errata").replace("<td>baseline</td>", "<td>E7</td>")
    table1 = TABLE.format("table1", "Table 1")
    first = executed(html_output(table1), text="# One\n\nSee chapter 2 (**E7**), E8 and Table 1, notebook 01.")
    text = set_all([first, executed(html_output(errata), text="# Two")], paper_session(), ["html"]).html.read_text()
    links = re.findall(r'<a\s+href="(#[^"]*)">([^<]*)</a>', text.split("<main>")[1])
    chapters = {("#two", "chapter\xa02"), ("#one", "notebook\xa001")}
    assert chapters | {("#erratum-E7", "E7"), ("#tbl:table1", "Table\xa01")} <= set(links)
    assert "#erratum-E8" not in text
    assert 'id="erratum-E7"' in text


def test_links_between_notebooks_and_to_papers_lead_to_chapters_and_references():
    said = (
        "# One\n\n[He et al., 2016](https://doi.org/10.1109/CVPR.2016.90), [chapter 2](02_chapter.ipynb), [3] and "
        "[Reference \\[2\\]](https://doi.org/10.1109/ICISS53185.2021.9532500), [9](09_none.ipynb)."
    )
    text = set_all([executed(text=said), executed(text="# Two")], paper_session(), ["html"]).html.read_text()
    body = text.split("<main>")[1]
    links = set(re.findall(r'<a\s+href="(#[^"]*)">([^<]*)</a>', body))
    assert {
        ("#reference-1", "He et al., 2016"),
        ("#two", "chapter\xa02"),
        ("#reference-3", "[3]"),
        ("#reference-2", "Reference [2]"),
    } <= links
    assert {f"reference-{n}" for n in (1, 2, 3)} <= set(Page(text).ids)
    assert 'href="https://doi.org/10.1109/CVPR.2016.90"' in body  # in the list itself


def test_code_keeps_its_plain_quotes_and_numbers_keep_their_units():
    said = "# One\n\nIt's `lab.runs(delete=\"a\")` and `b='c'`: 72.18 % (n = 3), seed 0."
    page = set_all([executed(text=said)], paper_session(), ["html"]).html.read_text()
    assert {'lab.runs(delete="a")', "b='c'"} <= set(re.findall("<code>(.*?)</code>", page))
    assert "It’s" in page and "72.18\xa0%" in page and "seed\xa00" in page and "(n\xa0=\xa03)" in page


def test_figures_and_tables_say_where_they_are_from():
    lab = paper_session()
    page = set_all([executed(html_output(FIGURE.format("one", "A picture")))], lab).html.read_text()
    assert re.search(r'href="01_chapter\.ipynb#cell-id=\w+">01_chapter, cell 2</a>', page)
    assert '#made("one.svg")' in (paths.build("paper") / "report.typ").read_text()
