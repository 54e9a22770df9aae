"""Features that the teacher writes, in batch, from the histories of entities.

The job is Ray Data's; the engine is not ours: ``deployments/batch.py`` hands in a
:class:`WriterFactory`. What has been paid for is on disk as soon as it is there.
"""

from features.generation.checks import CheckLimits, PartReport, check_part
from features.generation.histories import Histories, History
from features.generation.job import Job, run_job
from features.generation.output import OUTPUT_SCHEMA, parse_output
from features.generation.prompts import BUILTIN_TEMPLATES, Prompt, Template, read_template
from features.generation.publishing import Publication, publish
from features.generation.runs import Run, RunFolder, RunPlan
from features.generation.selection import head_entities
from features.generation.work import PartOutcome
from features.generation.writing import ModelIdentity, Writer, WriterError, WriterFactory, Written

__all__ = [
    "BUILTIN_TEMPLATES",
    "OUTPUT_SCHEMA",
    "CheckLimits",
    "Histories",
    "History",
    "Job",
    "ModelIdentity",
    "PartOutcome",
    "PartReport",
    "Prompt",
    "Publication",
    "Run",
    "RunFolder",
    "RunPlan",
    "Template",
    "Writer",
    "WriterError",
    "WriterFactory",
    "Written",
    "check_part",
    "head_entities",
    "parse_output",
    "publish",
    "read_template",
    "run_job",
]
