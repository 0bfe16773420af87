"""A report of one's own becomes a document beside the reference run, and a mistake in its file stops before that."""

from labreport import paths
from labreport.__main__ import main


def test_the_example_becomes_a_document_of_its_own(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("LABREPORT_HOME", str(tmp_path))
    example = paths.REPOSITORY / "docs" / "reported.toml"
    assert main(["report", "--reported", str(example), "--formats", "html"]) == 0
    (page,) = tmp_path.glob("build/reported/build/paper/report.html")
    assert str(page) in capsys.readouterr().out
    text = page.read_text()
    assert "A report of my own" in text and "plausible" in text and "0.145" in text
    assert "Appendix" not in text
    assert not (tmp_path / "figures").exists()


def test_a_mistake_stops_before_anything_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("LABREPORT_HOME", str(tmp_path / "home"))
    (tmp_path / "mine.toml").write_text('title = "Mine"\n[[system]]\nnetwork = "vgg"\n')
    assert main(["report", "--reported", str(tmp_path / "mine.toml")]) == 2
    assert "line 3: field 'network'" in capsys.readouterr().err
    assert not (tmp_path / "home").exists()
