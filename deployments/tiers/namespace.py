"""Whose KV blocks are in a file: everything that the same block hash does not say.

A block's hash covers tokens, tenant salt, and the LoRA adapter with the version of its files. What
it does not cover is here: the model's files, vLLM's version, how the cache is laid out in memory
(types, layers, parallelism, and on a CPU the instructions that the kernels are made for), and the
engine's arguments. One difference, and what is on the disk is another model's.
"""

from __future__ import annotations

import hashlib
import json
import platform
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

#: Files of a model up to so many bytes together are read whole; of larger ones, samples.
WHOLE_BYTES = 1 << 30
_SAMPLE_BYTES = 1 << 16
_SAMPLES = 64
_SUFFIXES = (".safetensors", ".bin", ".pt", ".gguf", ".json", ".model", ".py")


def namespace(**facts: Any) -> bytes:
    """32 bytes; other facts, other bytes. Values are what JSON knows."""
    text = json.dumps(facts, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).digest()


def model_digest(model: str) -> str:
    """Of the files in a folder; of a Hugging Face id, of its files in the local cache.

    Small models are read whole. Of large ones each file counts with its size, the time of its last
    change and 64 samples, so a copy of such a model is another one.
    """
    folder = Path(model)
    if not folder.is_dir():
        folder = _cached(model) or folder
    files = sorted(path for path in _files(folder) if path.suffix in _SUFFIXES)
    sizes = [path.stat().st_size for path in files]
    whole = sum(sizes) <= WHOLE_BYTES
    digest = hashlib.sha256(b"" if files else model.encode())
    for path, size in zip(files, sizes, strict=True):
        digest.update(f"{path.relative_to(folder)}\0{size}\0".encode())
        if not whole:
            digest.update(str(path.stat().st_mtime_ns).encode())
        with path.open("rb") as file:
            if whole:
                digest.update(hashlib.file_digest(file, "sha256").digest())
                continue
            for number in range(_SAMPLES):
                file.seek(size * number // _SAMPLES)
                digest.update(file.read(_SAMPLE_BYTES))
    return digest.hexdigest()


def processor() -> str:
    """What kernels that are chosen at run time look at."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        lines = []
    flags = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    return f"{platform.machine()} {' '.join(sorted(flags.partition(':')[2].split()))}"


def _files(folder: Path) -> Iterator[Path]:
    for path in folder.glob("**/*") if folder.is_dir() else ():
        if stat.S_ISREG(path.stat().st_mode):
            yield path


def _cached(model: str) -> Path | None:
    """The folder of a model's newest files in Hugging Face's cache."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(model, "config.json")
    return Path(found).parent if isinstance(found, str) else None
