"""Records and reported numbers as statistics, verdicts, tables and figures. Nothing here imports torch."""
