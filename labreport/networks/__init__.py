"""The networks, what they cost, and the work that cannot change what they compute."""
