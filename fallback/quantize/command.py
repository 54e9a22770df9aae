"""Write a model's linear layers in 8 or 4 bits, in the compressed-tensors format.

vLLM (CPU and GPU) and transformers load the result. Embeddings, norms and the output layer stay as
they are. w8a8: int8 weights and, as they come, int8 activations. w4a16: int4 weights in groups.
No calibration data is needed; `weir eval --gate quantized` says whether too much was lost.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path
from typing import Any, Final

import torch
from rich.console import Console
from rich.progress import track
from safetensors import safe_open
from safetensors.torch import save_file

from fallback.distill.export import read_manifest, write_manifest
from fallback.distill.models import folder_of, load_model, weights_sha256
from fallback.quantize.scheme import NAMES, Scheme
from weir.errors import ConfigError

INDEX: Final = "model.safetensors.index.json"
_EXAMPLE: Final = """\
example:
  weir quantize builtin:teacher --scheme w8a8 --out ./teacher-int8
  weir eval ./teacher-int8 --gate quantized
  weir up --model ./teacher-int8"""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog="weir quantize",
        description=__doc__,
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("model", help="directory or builtin:NAME")
    made.add_argument("--scheme", choices=NAMES, required=True)
    made.add_argument("--out", type=Path, required=True, help="the new model's folder")
    made.add_argument("--group-size", type=int, default=32, help="w4a16: inputs per scale")
    made.add_argument("--name", help="name for the manifest; default: the model's and the scheme")
    return made


def linear_names(model: str) -> tuple[frozenset[str], list[str]]:
    """Names of the linear layers to quantize, and of those to leave: the output layer.

    Raises:
        ConfigError: the model has none.
    """
    loaded = load_model(model)
    head = loaded.get_output_embeddings()
    left = [name for name, module in loaded.named_modules() if module is head]
    found = [
        name
        for name, module in loaded.named_modules()
        if isinstance(module, torch.nn.Linear) and module is not head
    ]
    if not found:
        raise ConfigError(f"{model}: no linear layers that could be quantized")
    return frozenset(found), left


def quantize_shard(source: Path, out: Path, scheme: Scheme, names: frozenset[str]) -> list[str]:
    """Writes one weight file with its linear layers quantized; the names of its tensors."""
    tensors: dict[str, torch.Tensor] = {}
    with safe_open(source, framework="pt") as held:
        for key in track(held.keys(), f"{source.name}", console=Console(stderr=True)):
            tensor = held.get_tensor(key)
            layer = key.removesuffix(".weight")
            if layer in names and tensor.ndim == 2:
                tensors |= scheme.tensors(layer, tensor)
            else:
                tensors[key] = tensor
    save_file({k: t.contiguous() for k, t in tensors.items()}, out, metadata={"format": "pt"})
    return list(tensors)


def quantize(model: str, out: Path, scheme: Scheme, name: str | None = None) -> None:
    """Writes the quantized model's folder.

    Raises:
        ConfigError: not a local model, `out` is the model itself, it is quantized already, or the
            group does not divide its layers.
    """
    folder = Path(folder_of(model))
    shards = sorted(folder.glob("*.safetensors"))
    if not shards:
        raise ConfigError(f"{model}: no folder with .safetensors files; download the model first")
    if out.resolve() == folder.resolve():
        raise ConfigError("--out must be another folder than the model's")
    config = json.loads((folder / "config.json").read_text())
    if "quantization_config" in config:
        raise ConfigError(f"{model}: already quantized")
    names, left = linear_names(model)
    out.mkdir(parents=True, exist_ok=True)
    weights: dict[str, str] = {}
    try:
        for shard in shards:
            written = quantize_shard(shard, out / shard.name, scheme, names)
            weights |= dict.fromkeys(written, shard.name)
    except ValueError as error:
        raise ConfigError(f"{model}: {error}") from error
    for path in folder.iterdir():
        if path.is_file() and path.suffix in (".json", ".jinja", ".model", ".txt"):
            shutil.copyfile(path, out / path.name)
    (out / "config.json").write_text(
        json.dumps({**config, "quantization_config": scheme.declaration(left)}, indent=2) + "\n"
    )
    if (out / INDEX).exists():
        index = json.loads((out / INDEX).read_text())
        (out / INDEX).write_text(json.dumps({**index, "weight_map": weights}, indent=2) + "\n")
    write_manifest(out, _manifest(read_manifest(folder), folder, scheme, name))


def _manifest(content: dict[str, Any], folder: Path, scheme: Scheme, name: str | None) -> Any:
    original = content.get("name", folder.name)
    method: dict[str, Any] = {
        "method": f"quantization {scheme.name}",
        "from": original,
        "from_sha256": weights_sha256(str(folder)),
    }
    if scheme.name == "w4a16":
        method["group_size"] = scheme.group
    # What was measured on the original does not hold for this one.
    measured = ("held_out", "metrics", "confidence", "training", "lineage", "sha256")
    kept = {key: value for key, value in content.items() if key not in measured}
    return {
        **kept,
        "name": name or f"{original}-{scheme.name}",
        "version": content.get("version", "1.0.0"),
        "lineage": method,
    }


def main(argv: list[str] | None = None) -> int:
    """Entry point. Exit code 2 where the arguments cannot be used."""
    arguments = parser().parse_args(argv)
    try:
        quantize(
            arguments.model,
            arguments.out,
            Scheme(arguments.scheme, arguments.group_size),
            arguments.name,
        )
    except ConfigError as error:
        print(f"weir quantize: {error.message}", file=sys.stderr)
        return 2
    print(arguments.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
