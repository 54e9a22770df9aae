"""Other systems' routing rules, each in one file with its source, as opponents in the simulator.

Each knows what the real system knows, as late as it does, with the defaults it is released with.
"""
