"""The routing bench's parts: the sweep over loads and systems, its marks, its picture."""
