"""A notebook's session, and what several notebooks show in the same way."""
