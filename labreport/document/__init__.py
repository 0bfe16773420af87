"""Notebooks executed and typeset."""
