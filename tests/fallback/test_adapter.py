"""Low-rank adapters in plain torch, and the tones that they learn."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from fallback.training.adapter import TONES, main, toned
from fallback.training.lora import LoraShape, put_on, save_adapter, trained
from weir import samples
from weir.adapters import inspect_adapter


class _Layers(nn.Module):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.q_proj = nn.Linear(6, 6, bias=False)
        self.other = nn.Linear(6, 6, bias=False)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return self.other(self.q_proj(hidden))


SHAPE = LoraShape(rank=2, alpha=4, targets=("q_proj",))


def test_training_starts_at_the_model_and_moves_nothing_but_the_adapter() -> None:
    torch.manual_seed(1)
    model = _Layers()
    hidden = torch.randn(3, 6)
    before = model(hidden)
    adapters = put_on(model, SHAPE, seed=1)
    assert list(adapters) == ["q_proj"]
    assert torch.equal(model(hidden), before)
    weights = model.other.weight.clone()
    optimizer = torch.optim.SGD(trained(list(adapters.values())), lr=0.5)
    model(hidden).square().sum().backward()
    optimizer.step()
    assert not torch.equal(model(hidden), before)
    assert torch.equal(model.other.weight, weights)


def test_the_files_say_what_the_adapter_adds(tmp_path: Path) -> None:
    model = _Layers()
    adapter = put_on(model, SHAPE, seed=1)["q_proj"]
    nn.init.normal_(adapter.b)
    save_adapter(tmp_path / "a", {"q_proj": adapter}, SHAPE, "base")
    tensors = load_file(tmp_path / "a" / "adapter_model.safetensors")
    a, b = (tensors[f"base_model.model.q_proj.lora_{x}.weight"].float() for x in "AB")
    hidden = torch.randn(3, 6)
    added = adapter(hidden) - adapter.base(hidden)
    assert torch.allclose(added, 2.0 * hidden @ a.T @ b.T, atol=0.1)
    assert inspect_adapter(str(tmp_path / "a")).rank == 2


def test_a_model_without_the_modules_is_refused() -> None:
    with pytest.raises(ValueError, match="no_such"):
        put_on(_Layers(), LoraShape(targets=("no_such",)), seed=1)


@pytest.mark.parametrize("name", TONES)
def test_a_tone_is_put_on_every_answer_and_known_again(name: str) -> None:
    tone = TONES[name]
    talk = toned(next(iter(samples.conversations(3))), tone)
    answers = [m["content"] for m in talk.messages() if m["role"] == "assistant"]
    assert answers
    assert all(tone.has(answer) for answer in answers)
    assert not tone.has("Your order is on its way.")


def test_a_few_steps_write_what_the_registry_takes(tmp_path: Path) -> None:
    out = tmp_path / "warm"
    main(["--out", str(out), "--steps", "2", "--batch", "1", "--held-out", "1"])
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["lineage"]["steps"] == 2
    assert inspect_adapter(str(out)).rank == 8
    report = json.loads((tmp_path / "warm-report.json").read_text())
    assert report["gate"]["passed"] is False
