"""Request traces of several public formats, read into one schema.

The files are the user's: a path is given, nothing is downloaded and nothing is committed here
except one tiny hand-written sample per format (``samples/``), for tests.
"""

from load_tests.traces.formats import FORMATS, detect_format, load_trace
from load_tests.traces.schema import Trace, TraceError, TraceRequest
from load_tests.traces.shaping import assign_classes, head, jitter_ticks, merge, scale_rate

__all__ = [
    "FORMATS",
    "Trace",
    "TraceError",
    "TraceRequest",
    "assign_classes",
    "detect_format",
    "head",
    "jitter_ticks",
    "load_trace",
    "merge",
    "scale_rate",
]
