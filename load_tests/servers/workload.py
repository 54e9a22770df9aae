"""The model and the engine settings that all opponents share: those of the laptop profile."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from load_tests.servers.process import REPOSITORY, Unavailable
from weir.settings import load_settings

TEACHER = REPOSITORY / "platform" / "weir" / "artifacts" / "teacher"
PROFILE = "laptop"
SERVED_NAME = "bench"


@dataclass(frozen=True, slots=True)
class EngineWorkload:
    """``args``: vLLM's engine arguments; ``env``: the engine's environment."""

    model: Path
    served_name: str
    args: Mapping[str, Any]
    env: Mapping[str, str]

    def command_line(self) -> list[str]:
        """The engine arguments as options of vLLM's own server."""
        words = []
        for key, value in self.args.items():
            option = key.replace("_", "-")
            if value is True:
                words.append(f"--{option}")
            elif value is False:
                words.append(f"--no-{option}")
            else:
                text = json.dumps(value) if isinstance(value, dict | list) else str(value)
                words += [f"--{option}", text]
        return words

    def token_counter(self) -> Callable[[str], int]:
        """Counts a text's tokens; what the chat template adds comes on top."""
        tokenizer = Tokenizer.from_file(str(self.model / "tokenizer.json"))

        def count(text: str) -> int:
            return len(tokenizer.encode(text, add_special_tokens=False).ids)

        return count


def engine_workload(model: Path | None) -> EngineWorkload:
    """``model`` (or else the teacher that ships with weir) with the laptop profile's engine.

    Raises:
        Unavailable: there is no model there.
    """
    path = (model or TEACHER).resolve()
    if not (path / "config.json").is_file() or not (path / "tokenizer.json").is_file():
        raise Unavailable(f"no model in {path}: name one with --model")
    engine = load_settings(PROFILE).models[0].engine
    return EngineWorkload(path, SERVED_NAME, engine.args, engine.env)
