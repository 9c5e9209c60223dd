"""Which channel answers, and which one when that fails."""
