"""What a training says of its progress, where nobody sees a bar move."""

from labreport.training import progress


def test_a_log_gets_lines_and_no_carriage_returns(capsys, monkeypatch):
    monkeypatch.setattr(progress, "LOG_INTERVAL", 0.0)
    with progress.progress("baseline, seed 0", total=200, done=100) as bar:
        bar.set_postfix_str("epoch 2/2, val 50.00%", refresh=False)
        bar.update(100)
    out, err = capsys.readouterr()
    assert out == ""
    assert "\r" not in err
    lines = err.splitlines()
    assert lines[0].startswith("baseline, seed 0: 50 %")
    assert lines[-1].startswith("baseline, seed 0: 100 % after")
    assert lines[-1].endswith("epoch 2/2, val 50.00%")


def test_a_log_is_not_flooded(capsys):
    with progress.progress("baseline, seed 0", total=1000, done=0) as bar:
        for _ in range(1000):
            bar.update(1)
    assert len(capsys.readouterr().err.splitlines()) == 2  # its start and its end
