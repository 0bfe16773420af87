"""One training from start to record: the run and its checkpoint, the steps, the evaluation."""
