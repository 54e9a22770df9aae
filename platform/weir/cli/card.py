"""``weir models card``: what a replica of a model needs and can do, from its ``config.json``."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from weir.cards import Card, read_card
from weir.cards.weights import files_bytes
from weir.cli.exits import CommandError, ExitCode
from weir.cli.state import State

_LENGTHS = (1024, 4096, 8192, 32768, 131072)
_GIB = 2**30


@dataclass(frozen=True, slots=True)
class CardOptions:
    """``model``: a folder, ``builtin:NAME``, a model of the settings, or one of the registry.
    ``memory_gib``: for weights and KV cache together. What is None is as the settings have it."""

    model: str
    memory_gib: float | None = None
    dtype: str | None = None
    kv_dtype: str | None = None
    block_size: int | None = None
    registry: str | None = None


@dataclass(frozen=True, slots=True)
class _Found:
    folder: Path
    args: dict[str, Any]


def show_card(options: CardOptions, state: State, as_json: bool) -> None:
    """Print it as a table, or as one JSON object.

    Raises:
        CommandError: there is no such model, or its files are not here.
        CardError: its ``config.json`` lacks something.
    """
    found = _find(options, state)
    card = read_card(
        found.folder,
        dtype=options.dtype or found.args.get("dtype"),
        kv_dtype=options.kv_dtype or found.args.get("kv_cache_dtype"),
        block_size=options.block_size or int(found.args.get("block_size") or 16),
    )
    room = _room(card, options.memory_gib, found.args)
    figures = card_figures(card, room)
    figures["files_bytes"] = files_bytes(found.folder)
    if as_json:
        print(json.dumps({"model": options.model, **figures}))
    else:
        print("\n".join(_lines(options.model, figures)))


def card_figures(card: Card, room_bytes: int | None) -> dict[str, Any]:
    """All figures of a card. ``room_bytes``: for the KV cache, beside the weights."""
    bend = card.attention_tokens
    lengths = [n for n in _LENGTHS if n <= (card.max_tokens or n)] or [card.max_tokens]
    return {
        "parameters": card.shape.parameters,
        "active_parameters": card.shape.active_parameters,
        "weights": card.weights.name,
        "weight_bytes": card.weight_bytes,
        "attention": card.attention,
        "kv_bytes_per_token": card.kv_bytes_per_token,
        "long_kv_bytes_per_token": card.long_kv_bytes_per_token,
        "block_size": card.block_size,
        "block_bytes": card.block_bytes,
        "max_tokens": card.max_tokens,
        "attention_tokens": None if math.isinf(bend) else round(bend),
        "kv_room_bytes": room_bytes,
        "kv_blocks": room_bytes and card.block_bytes and room_bytes // card.block_bytes,
        "most_tokens": room_bytes and card.most_tokens(room_bytes),
        "at": [_at_length(card, tokens, room_bytes) for tokens in lengths],
    }


def _at_length(card: Card, tokens: int, room_bytes: int | None) -> dict[str, int | None]:
    most = None if room_bytes is None else card.most_requests(room_bytes, tokens)
    return {
        "context_tokens": tokens,
        "request_bytes": card.request_bytes(tokens),
        "most_requests": most,
        "prefill_flops": card.prefill_flops(tokens),
        "prefill_flops_per_token": card.prefill_flops(tokens) // tokens,
        "decode_flops": card.decode_flops(1, tokens),
        "decode_bytes": card.decode_bytes(1, tokens),
        "decode_bytes_when_full": card.decode_bytes(most, tokens) if most else None,
    }


def _room(card: Card, memory_gib: float | None, args: dict[str, Any]) -> int | None:
    if memory_gib is None:
        own = args.get("kv_cache_memory_bytes")
        return None if own is None else int(own)
    return max(0, int(memory_gib * _GIB) - card.weight_bytes)


def _find(options: CardOptions, state: State) -> _Found:
    path = Path(options.model).expanduser()
    if path.is_dir():
        return _Found(path, {})
    args: dict[str, Any] = {}
    source = options.model
    for model in _settings(state).models:
        if model.name == options.model:
            source, args = model.source, dict(model.engine.args)
    if source.startswith("builtin:"):
        name = source.removeprefix("builtin:")
        return _Found(Path(str(resources.files("weir"))) / "artifacts" / name, args)
    folder = Path(source).expanduser()
    if not folder.is_dir():
        folder = _registered(source.removeprefix("registry:"), options, state)
    return _Found(folder, args)


def _settings(state: State) -> Any:
    from weir.settings import load_settings

    file = state.settings_file
    return load_settings("laptop", file if file.is_file() else None)


def _registered(reference: str, options: CardOptions, state: State) -> Path:
    from weir.errors import WeirError
    from weir.registry import Registry, parse_reference

    url = options.registry or str(state.folder / "registry")
    try:
        return Registry(url, cache=state.folder / "models").open(*parse_reference(reference))
    except (WeirError, OSError, ValueError):
        raise CommandError(
            f"no folder, model of the settings or of the registry is called {reference}",
            ExitCode.USAGE,
            hint="a model of Hugging Face: put its config.json into a folder and name that",
        ) from None


def _lines(name: str, figures: dict[str, Any]) -> list[str]:
    bend = figures["attention_tokens"]
    rows = [
        ("parameters", f"{figures['parameters']:,} ({figures['active_parameters']:,} per token)"),
        ("weights", f"{_size(figures['weight_bytes'])} as {figures['weights']}"),
        ("files", _size(figures["files_bytes"])),
        ("attention", figures["attention"]),
        ("KV per token", _kv(figures)),
        ("KV block", f"{figures['block_size']} tokens, {_size(figures['block_bytes'])}"),
        ("attention = matrices at", "never" if bend is None else f"{bend:,} tokens of context"),
    ]
    if figures["kv_room_bytes"] is not None:
        room, blocks = _size(figures["kv_room_bytes"]), figures["kv_blocks"] or 0
        most = figures["most_tokens"] or 0
        rows.append(("KV room", f"{room}: {blocks:,} blocks, {most:,} tokens"))
    lines = [name, *(f"  {label:<24}{text}" for label, text in rows), ""]
    heads = ("context", "KV", "requests", "prefill", "per token", "decode", "reads a step")
    lines.append("".join(f"{head:>14}" for head in heads))
    return lines + [_row(at) for at in figures["at"]]


def _row(at: dict[str, Any]) -> str:
    most = at["most_requests"]
    cells = (
        f"{at['context_tokens']:,}",
        _size(at["request_bytes"]),
        "–" if most is None else f"{most:,}",
        _flops(at["prefill_flops"]),
        _flops(at["prefill_flops_per_token"]),
        _flops(at["decode_flops"]),
        _size(at["decode_bytes"]),
    )
    return "".join(f"{cell:>14}" for cell in cells)


def _kv(figures: dict[str, Any]) -> str:
    short, long = figures["kv_bytes_per_token"], figures["long_kv_bytes_per_token"]
    return f"{short:,} bytes" + ("" if short == long else f" ({long:,} beyond the windows)")


def _size(count: float | None) -> str:
    if count is None:
        return "–"
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.4g} {unit}"
        count /= 1024
    return f"{count:,.2f} GiB"


def _flops(count: float) -> str:
    for unit in ("", "K", "M", "G", "T"):
        if count < 1000:
            return f"{count:.3g} {unit}FLOP"
        count /= 1000
    return f"{count:.3g} PFLOP"
