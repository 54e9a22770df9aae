"""Teacher and student as the loop sees them: ids in, logits at chosen places out."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, Final

import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from weir.errors import ConfigError

BUILTIN: Final = "builtin:"
_SAME: Final = 1e-4


def folder_of(model: str) -> str:
    """A directory or Hugging Face id for `model`, which may also be `builtin:NAME`.

    Raises:
        ConfigError: there is no built-in model of that name.
    """
    if not model.startswith(BUILTIN):
        return model
    import weir

    folder = Path(weir.__file__).parent / "artifacts" / model.removeprefix(BUILTIN)
    if not (folder / "config.json").is_file():
        known = sorted(path.name for path in folder.parent.iterdir() if path.is_dir())
        raise ConfigError(f"{model}: no such model ships with weir; known: {', '.join(known)}")
    return str(folder)


def load_model(model: str) -> PreTrainedModel:
    """A causal model in float32. Raises ConfigError if there is none to load."""
    try:
        loaded = AutoModelForCausalLM.from_pretrained(folder_of(model), dtype=torch.float32)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{model}: not a causal model that can be loaded: {error}") from error
    if getattr(loaded.config, "quantization_config", None) is not None:
        # Packed weights are unpacked by the first pass; before it, layers have no weights to count.
        with torch.no_grad():
            loaded.eval()(input_ids=torch.zeros(1, 1, dtype=torch.long))
    return loaded.eval()


def load_tokenizer(model: str) -> PreTrainedTokenizerBase:
    """The model's tokenizer. Raises ConfigError if there is none to load."""
    try:
        return AutoTokenizer.from_pretrained(folder_of(model))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{model}: no tokenizer that can be loaded: {error}") from error


def pad_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """The id to pad with: any will do behind the end, where nothing looks."""
    for found in (tokenizer.pad_token_id, tokenizer.eos_token_id):
        if found is not None:
            return int(found)
    return 0


def student_from(teacher: PreTrainedModel, overrides: dict[str, Any], seed: int) -> PreTrainedModel:
    """A fresh student: the teacher's configuration with `overrides`, seeded float32 weights.

    Raises:
        ConfigError: a key that the architecture does not know, or sizes that do not fit.
    """
    base = teacher.config.to_dict()
    kind = overrides.get("model_type", base["model_type"])
    known = set(AutoConfig.for_model(kind).to_dict()) | {"head_dim"}
    if unknown := sorted(set(overrides) - known):
        raise ConfigError(f"student config: {kind} has no {', '.join(unknown)}")
    # What was derived from sizes that change must be derived again.
    inherited = base if kind == base["model_type"] else {"vocab_size": base["vocab_size"]}
    dropped = {"torch_dtype", "dtype", "architectures", "layer_types", "transformers_version"}
    kept = {key: value for key, value in inherited.items() if key not in dropped}
    torch.manual_seed(seed)
    try:
        config = AutoConfig.for_model(**{**kept, **overrides, "model_type": kind})
        student = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    except (ValueError, TypeError, RuntimeError) as error:
        raise ConfigError(f"student config: {error}") from error
    if student.config.vocab_size != teacher.config.vocab_size:
        raise ConfigError("student config: vocab_size must be the teacher's")
    student.generation_config = GenerationConfig.from_dict(teacher.generation_config.to_dict())
    return student


def parameter_count(model: nn.Module) -> int:
    """Parameters, tied ones once."""
    return sum(parameter.numel() for parameter in model.parameters())


def weights_sha256(folder: str) -> str:
    """One digest of a local model's files; of the name where it is a Hugging Face id."""
    digest = hashlib.sha256(folder.encode() if not Path(folder).is_dir() else b"")
    for path in sorted(Path(folder).glob("*.safetensors")) if Path(folder).is_dir() else ():
        digest.update(path.read_bytes())
    return digest.hexdigest()


def read_overrides(path: Path) -> dict[str, Any]:
    """A student configuration: a JSON object. Raises ConfigError if it is none."""
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: {error}") from error
    if not isinstance(found, dict):
        raise ConfigError(f"{path}: expected a JSON object of configuration values")
    return found


class KeptLogits(nn.Module):  # type: ignore[misc]
    """A model whose output layer is only computed where it is asked for.

    Most of a small model's work is its output layer, and most of a prompt's logits are never
    looked at. A model that does more to its logits than one linear layer (a cap, a scale) is found
    out by comparing both ways once, and then computes them all.
    """

    def __init__(self, model: PreTrainedModel, compiled: bool = False) -> None:
        super().__init__()
        self.model = model
        self.short = _shortcut_agrees(model)
        trunk = model.base_model
        # In a tuple, so that the compiled twin is not registered and saved a second time.
        self._trunk = (torch.compile(trunk, dynamic=True) if compiled else trunk,)

    def forward(self, ids: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        """Logits (len(places), vocabulary), float32, of the tokens after `places`.

        `ids` (rows, length), right-padded; `places` are flat indices into (rows, length - 1).
        """
        if not self.short:
            logits = self.model(input_ids=ids, use_cache=False).logits[:, :-1]
            return logits.flatten(0, 1)[places].float()
        hidden = self._trunk[0](input_ids=ids, use_cache=False).last_hidden_state
        kept = hidden[:, :-1].flatten(0, 1)[places]
        return self.model.get_output_embeddings()(kept).float()


def _shortcut_agrees(model: PreTrainedModel) -> bool:
    """Whether base model and output layer alone give the model's logits."""
    head = model.get_output_embeddings()
    if head is None or model.base_model is model:
        return False
    ids = torch.arange(8).remainder(model.config.vocab_size).unsqueeze(0)
    ids = ids.to(next(model.parameters()).device)
    training = model.training
    with torch.no_grad():
        whole = model.eval()(input_ids=ids, use_cache=False).logits
        short = head(model.base_model(input_ids=ids, use_cache=False).last_hidden_state)
    model.train(training)
    return whole.shape == short.shape and bool((whole - short).abs().max() <= _SAME)
