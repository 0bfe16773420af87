"""Executed notebooks as papermill leaves them, and a session to set them in."""

from fake_records import fake_record
from nbformat.v4 import new_output

from labreport.document import typeset
from labreport.lab.session import Lab

SVG = "PHN2ZyB4bWxucz0iaHR0cDovL3d3dy53My5vcmcvMjAwMC9zdmciIHdpZHRoPSI0MCIgaGVpZ2h0PSI0MCI+PHJlY3Qgd2lkdGg9IjQwIiBoZWlnaHQ9IjQwIi8+PC9zdmc+"  # noqa: E501
FIGURE = '<figure id="fig:{0}"><img src="data:image/svg+xml;base64,' + SVG + '"><figcaption>{1}</figcaption></figure>'


def html_output(text):
    return new_output("display_data", {"text/html": text, "text/plain": "<HTML>"})


def set_all(notebooks, lab, formats=("pdf", "html")):
    chapters = [typeset.Chapter(f"{n:02}_chapter", notebook) for n, notebook in enumerate(notebooks, start=1)]
    return typeset.write_documents(chapters, typeset.framed(lab), lab.profile, formats)


def paper_session(source="official"):
    """A session of the profile paper that has one record, and so needs no data."""
    lab = Lab.open("paper")
    lab.store.save(fake_record("baseline", source=source))
    return lab
