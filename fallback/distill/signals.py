"""The teacher's opinion of a batch: computed when asked for, or kept on disk for the next run."""

from __future__ import annotations

import random
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from fallback.distill.feed import Batch
from fallback.distill.losses import TopK, top_k
from fallback.distill.models import KeptLogits


class Opinions:
    """Top-k opinions of a frozen teacher. With a `folder` each is written once and read back.

    Args:
        folder: where to keep them; its name must tell teacher, corpus, seed, temperature and k
            apart. None computes them every time.
    """

    def __init__(self, teacher: KeptLogits, k: int, temperature: float, folder: Path | None):
        self._teacher, self._k, self._temperature = teacher, k, temperature
        self._folder = folder

    def of(self, batch: Batch, places: torch.Tensor, key: str) -> TopK:
        """The opinion on `places` of `batch`; `key` names the batch in the cache."""
        if self._folder is None:
            return self._computed(batch, places)
        path = self._folder / f"{key}.safetensors"
        if path.is_file():
            held = load_file(path)
            if held["ids"].shape[0] == len(places):
                return TopK(held["ids"].long(), held["log_probs"].float(), held["rest"])
        # Rounded as it is stored, so that the first run and the next read the same.
        made = self._computed(batch, places)
        opinion = TopK(made.ids, made.log_probs.half().float(), made.rest)
        self._folder.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(f".part{random.getrandbits(32)}")
        tensors = {
            "ids": opinion.ids.int(),
            "log_probs": opinion.log_probs.half(),
            "rest": opinion.rest,
        }
        save_file({name: tensor.cpu() for name, tensor in tensors.items()}, part)
        part.replace(path)
        return opinion

    def logits(self, batch: Batch, places: torch.Tensor) -> torch.Tensor:
        """All logits (places, vocabulary), without gradient."""
        with torch.no_grad():
            found: torch.Tensor = self._teacher(batch.ids, places)
        return found

    def _computed(self, batch: Batch, places: torch.Tensor) -> TopK:
        with torch.no_grad():
            return top_k(self._teacher(batch.ids, places), self._k, self._temperature)
