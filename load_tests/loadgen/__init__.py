"""A closed-loop load generator for streaming OpenAI servers: one process, raw sockets, no client
library, so that what it measures is the server's and not its own. It reports its own CPU time."""

from load_tests.loadgen.connection import Target
from load_tests.loadgen.dialects import CHAT, MESSAGES, RESPONSES, Dialect
from load_tests.loadgen.load import Load, Outcome, run_load
from load_tests.loadgen.prompts import chat_bodies, prompt_texts
from load_tests.loadgen.sample import Sample, Watch, figures, latency_figures

__all__ = [
    "CHAT",
    "MESSAGES",
    "RESPONSES",
    "Dialect",
    "Load",
    "Outcome",
    "Sample",
    "Target",
    "Watch",
    "chat_bodies",
    "figures",
    "latency_figures",
    "prompt_texts",
    "run_load",
]
