"""A discrete-event simulator of a fleet of engines behind the real routing objects."""
