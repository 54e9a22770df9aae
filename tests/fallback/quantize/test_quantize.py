"""Quantized weights: bounds, packing, a folder that loads and answers as the original."""

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from fallback.distill.export import file_hashes
from fallback.distill.models import load_model
from fallback.quantize import command
from fallback.quantize.packing import pack_int32, quantize_matrix, unpack_int32
from fallback.quantize.scheme import Scheme


@pytest.fixture(scope="module", autouse=True)
def _imported_quietly() -> None:
    # Its first import warns about itself.
    pytest.importorskip("compressed_tensors")


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 999), st.sampled_from([4, 8]), st.sampled_from([None, 32, 64]))
def test_what_comes_back_is_within_the_bits_reach(seed: int, bits: int, group: int | None) -> None:
    weight = torch.randn(8, 128, generator=torch.Generator().manual_seed(seed))
    made = quantize_matrix(weight, bits, group)
    size = group or 128
    assert made.scales.shape == (8, 128 // size)
    # No worse than rounding at the scale that just reaches the largest value.
    parts = weight.reshape(8, -1, size)
    plain = parts.abs().amax(-1, keepdim=True) / (2 ** (bits - 1) - 1)
    rounded = ((parts / plain).round() * plain).reshape(8, 128)
    error = (made.dequantized() - weight).square().sum()
    assert float(error) <= float((rounded - weight).square().sum()) * 1.0001


@given(st.integers(0, 999), st.sampled_from([4, 8]))
def test_packing_round_trips(seed: int, bits: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1)
    values = torch.randint(low, high, (3, 64), generator=generator).to(torch.int8)
    packed = pack_int32(values, bits)
    assert packed.dtype == torch.int32
    assert packed.shape == (3, 64 * bits // 32)
    assert torch.equal(unpack_int32(packed, bits), values)


def test_packing_is_the_formats_own() -> None:
    helpers = pytest.importorskip("compressed_tensors.compressors.pack_quantized.helpers")
    values = torch.randint(-8, 8, (5, 96), generator=torch.Generator().manual_seed(2))
    values = values.to(torch.int8)
    assert torch.equal(pack_int32(values, 4), helpers.pack_to_int32(values, 4))


def test_a_group_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="do not divide"):
        quantize_matrix(torch.zeros(2, 100), 4, 64)


@pytest.mark.engine
@pytest.mark.parametrize(("name", "most_bytes"), [("w8a8", 0.65), ("w4a16", 0.45)])
def test_a_quantized_teacher_loads_and_nearly_agrees(
    name: str, most_bytes: float, tmp_path: Path, repo_root: Path
) -> None:
    teacher = repo_root / "platform" / "weir" / "artifacts" / "teacher"
    out = tmp_path / name
    assert command.main(["builtin:teacher", "--scheme", name, "--out", str(out)]) == 0
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["sha256"] == file_hashes(out)
    assert manifest["lineage"]["method"] == f"quantization {name}"
    assert "held_out" not in manifest
    size = (out / "model.safetensors").stat().st_size
    assert size <= most_bytes * (teacher / "model.safetensors").stat().st_size
    ids = torch.randint(6, 2000, (2, 64), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        original = load_model("builtin:teacher")(input_ids=ids).logits.flatten()
        found = load_model(str(out))(input_ids=ids).logits.flatten()
    agreement = float(torch.corrcoef(torch.stack([original, found]))[0, 1])
    assert agreement >= (0.99 if name == "w8a8" else 0.9)


def test_only_layers_are_replaced() -> None:
    made = Scheme("w4a16", 32).tensors("a.b", torch.randn(4, 64))
    assert {key: tuple(t.shape) for key, t in made.items()} == {
        "a.b.weight_packed": (4, 8),
        "a.b.weight_scale": (4, 2),
        "a.b.weight_shape": (2,),
    }


def test_what_cannot_be_quantized_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = ["--scheme", "w8a8", "--out", str(tmp_path / "q")]
    assert command.main([str(tmp_path), *out]) == 2
    assert "safetensors" in capsys.readouterr().err
    assert command.main(["builtin:nothing", *out]) == 2
    assert "no such model" in capsys.readouterr().err
    assert command.main(["builtin:teacher", *out]) == 0
    again = ["--scheme", "w8a8", "--out", str(tmp_path / "again")]
    assert command.main([str(tmp_path / "q"), *again]) == 2
    assert "already quantized" in capsys.readouterr().err
    assert load_file(tmp_path / "q" / "model.safetensors")
