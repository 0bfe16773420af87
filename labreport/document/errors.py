"""What can go wrong with a report."""


class ReportError(RuntimeError):
    """The report cannot be built; the message is one sentence that says why."""
