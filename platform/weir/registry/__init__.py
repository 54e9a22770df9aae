"""The model registry: versions of models, hashed, with stages, on a directory or object store."""

from weir.registry.gate import GateReport
from weir.registry.index import Stage, Version
from weir.registry.manifest import Confidence, Manifest, read_manifest, verify_folder
from weir.registry.registry import Registry, parse_reference

__all__ = [
    "Confidence",
    "GateReport",
    "Manifest",
    "Registry",
    "Stage",
    "Version",
    "parse_reference",
    "read_manifest",
    "verify_folder",
]
