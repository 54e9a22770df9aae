"""A trained student as a model folder: Hugging Face files and a manifest that vouches for them."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from fallback.distill.models import parameter_count

MANIFEST = "manifest.json"


def file_hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of each file of a model folder but its manifest and its pictures."""
    files = sorted(p for p in folder.iterdir() if p.is_file() and p.name != MANIFEST)
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
        if path.suffix != ".png"
    }


def write_manifest(folder: Path, content: dict[str, Any]) -> None:
    """Writes `content` with fresh hashes; replaced whole."""
    part = folder / f"{MANIFEST}.part"
    # Hashed first: the part file must not vouch for itself.
    held = {**content, "sha256": file_hashes(folder)}
    part.write_text(json.dumps(held, indent=2) + "\n")
    os.replace(part, folder / MANIFEST)


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest, empty if the folder has none."""
    path = folder / MANIFEST
    found: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    return found


def export(
    out: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, content: dict[str, Any]
) -> None:
    """Writes weights (bfloat16), configuration, tokenizer and manifest into `out`."""
    out.mkdir(parents=True, exist_ok=True)
    model.to(torch.bfloat16).save_pretrained(out)
    tokenizer.save_pretrained(out, save_jinja_files=False)
    write_manifest(out, {**content, "parameters": parameter_count(model)})
