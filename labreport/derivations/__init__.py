"""Notebook 01: the formulas, their checks against PyTorch, and their pictures."""
