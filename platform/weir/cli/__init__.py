"""The ``weir`` command. Modules load only when their command runs, so that it starts fast."""
