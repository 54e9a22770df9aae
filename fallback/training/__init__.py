"""Training of the small models that ship with weir. The only package that imports torch."""
