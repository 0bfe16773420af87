"""Notebooks executed and typeset."""

import sys

# nbformat's validator would have a grammar of international web addresses built, which takes seconds: no notebook's
# schema asks for them, and jsonschema does without where the package is missing.
sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]
