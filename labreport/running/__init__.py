"""Many trainings on the machines at hand."""
