"""Prompts have the token ids that vLLM's own renderer gives them."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from deployments.gateway.bodies.requests import ChatBody, parse_body
from deployments.gateway.prompts import PromptEncoder
from tests.deployments.chat_templates import BODIES
from tests.deployments.chat_templates import TEMPLATES as STYLES
from tests.deployments.family_templates import FAMILY_TEMPLATES
from weir.errors import BadRequestError

TEACHER = Path(__file__).parents[2] / "platform/weir/artifacts/teacher"
TEMPLATES = STYLES | FAMILY_TEMPLATES
TEXTS = ["", " a  b\n", "<|end|>Größe 😀", "<s>x</s>"]


def _with_template(folder: Path, source: str, **more: Any) -> Path:
    folder.mkdir()
    shutil.copy(TEACHER / "tokenizer.json", folder)
    shutil.copy(TEACHER / "config.json", folder)
    config = json.loads((TEACHER / "tokenizer_config.json").read_text())
    config |= {"chat_template": source} | more
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("models")
    made = {name: _with_template(root / name, source) for name, source in TEMPLATES.items()}
    made["bos"] = _with_template(root / "bos", TEMPLATES["names"], add_bos_token=True)
    return made | {"teacher": TEACHER}


@pytest.fixture(scope="module")
def engine(folders: dict[str, Path]) -> Any:
    asked = {
        "folders": {name: str(folder) for name, folder in folders.items()},
        "bodies": BODIES,
        "texts": TEXTS,
    }
    program = Path(__file__).parent / "engine_prompts.py"
    done = subprocess.run(
        [sys.executable, str(program)],
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout[done.stdout.index('{"') :])


@pytest.mark.parametrize("title", BODIES)
@pytest.mark.parametrize("template", [*TEMPLATES, "bos", "teacher"])
def test_chat_prompts_equal_the_engines(
    engine: Any, folders: dict[str, Path], template: str, title: str
) -> None:
    body = parse_body(ChatBody, json.dumps({"model": "m", **BODIES[title]}).encode())
    encoder = PromptEncoder(folders[template], "vllm")
    expected = engine[template]["chat"][title]
    if isinstance(expected, str):
        with pytest.raises(BadRequestError):
            encoder.encode_chat(body.conversation())
    else:
        ids = encoder.encode_chat(body.conversation())
        assert encoder.decode(ids) == encoder.decode(expected)
        assert ids == expected


@pytest.mark.parametrize("template", [*TEMPLATES, "bos", "teacher"])
def test_plain_prompts_equal_the_engines(
    engine: Any, folders: dict[str, Path], template: str
) -> None:
    encoder = PromptEncoder(folders[template])
    assert [encoder.encode_text(text) for text in TEXTS] == engine[template]["texts"]


def test_few_conversations_are_refused_by_both(engine: Any) -> None:
    # Otherwise the comparison above would compare errors.
    answers = [ids for each in engine.values() for ids in each["chat"].values()]
    assert sum(isinstance(ids, str) for ids in answers) <= len(answers) / 10
