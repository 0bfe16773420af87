"""Notebooks executed and typeset."""

import sys

# jsonschema, which nbformat imports, builds a grammar of IRIs for two seconds, and a notebook's schema asks for none.
_GRAMMAR = "rfc3987_syntax"
if "jsonschema" not in sys.modules and _GRAMMAR not in sys.modules:
    sys.modules[_GRAMMAR] = None  # type: ignore[assignment]  # as if it were not installed
    try:
        import jsonschema  # noqa: F401
    finally:
        del sys.modules[_GRAMMAR]
