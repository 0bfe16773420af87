"""Speed, measured against the report's own loop."""
