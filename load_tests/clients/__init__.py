"""Other people's clients against weir: which ones, in which environments, and what came of it."""
