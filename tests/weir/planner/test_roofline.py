"""Step times: their parts by hand, and how they grow."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.weir.cards.configs import LLAMA_31_8B
from weir.cards import make_card
from weir.errors import ConfigError
from weir.planner.accelerators import accelerator_names, find_accelerator
from weir.planner.roofline import Efficiencies, Layout, Roofline

MOE = {
    **LLAMA_31_8B,
    "model_type": "qwen3_moe",
    "num_experts": 64,
    "num_experts_per_tok": 4,
    "moe_intermediate_size": 1024,
}
IDEAL = Efficiencies(1, 1, 1, 1, 0, 0, 0, 1)


def line(config=LLAMA_31_8B, layout=Layout(), efficiencies=IDEAL, name="H100"):
    heads = int(config["num_key_value_heads"])
    return Roofline(make_card(config), find_accelerator(name), layout, efficiencies, 4096, heads)


def test_one_stream_reads_all_weights_once():
    step = line().step(0, 1, 0)
    read = make_card(LLAMA_31_8B).step_weight_bytes(1)
    assert step.matrices_s == pytest.approx(read / 3.35e12)
    assert step.attention_s == step.links_s == step.own_s == 0


def test_a_long_prompt_takes_its_operations():
    step = line().step(4096, 0, 0, 2048)
    card = make_card(LLAMA_31_8B)
    assert step.matrices_s == pytest.approx(4096 * 2 * card.shape.multiplied / 989e12)
    pairs = 4 * 32 * 128 * 32 * 2048
    assert step.attention_s == pytest.approx(4096 * pairs / 989e12)


def test_streams_read_what_they_keep():
    step = line().step(0, 10, 1000)
    assert step.kv_s == pytest.approx(10 * 1000 * 131072 / 3.35e12)


def test_tensor_parallelism_divides_work_and_adds_two_sums_a_layer():
    one, four = line().step(0, 8, 1000), line(layout=Layout(4)).step(0, 8, 1000)
    assert four.matrices_s == pytest.approx(one.matrices_s / 4)
    assert four.kv_s == pytest.approx(one.kv_s / 4)
    moved = 8 * 4096 * 2 * 2 * 3 / 4
    assert four.links_s == pytest.approx(2 * 32 * moved / 450e9)


def test_more_devices_than_kv_heads_keep_copies():
    assert Layout(8).kv_copies(8) == 1
    assert Layout(16).kv_copies(8) == 2
    assert Layout(4).kv_copies(1) == 4


def test_data_parallel_attention_keeps_all_but_the_experts_on_each_device():
    one, wide = line(MOE), line(MOE, Layout(data=8))
    card = make_card(MOE)
    experts = card.shape.expert * card.shape.experts * card.shape.expert_layers
    copied = card.weight_bytes - 2 * experts
    assert wide.weight_bytes == pytest.approx(one.weight_bytes + 7 * copied, rel=1e-6)
    assert wide.step(0, 8, 100).matrices_s > one.step(0, 8, 100).matrices_s / 8


@given(st.integers(1, 4096), st.integers(0, 512), st.integers(0, 8192))
def test_a_step_never_gets_faster_with_more_in_it(prefill, decodes, context):
    roofline = line(efficiencies=Efficiencies())
    step = roofline.step(prefill, decodes, context, context).total_s
    assert step <= roofline.step(prefill + 64, decodes, context, context).total_s
    assert step <= roofline.step(prefill, decodes + 8, context, context).total_s
    assert step <= roofline.step(prefill, decodes, context + 100, context + 100).total_s


def test_weights_without_units_for_their_type_are_widened():
    quantized = {**LLAMA_31_8B, "quantization_config": {"quant_method": "fp8"}}
    fast, slow = line(quantized, name="H100"), line(quantized, name="A100-80G")
    prompt = (8192, 0, 0, 0)
    assert fast.step(*prompt).matrices_s == pytest.approx(
        8192 * 2 * make_card(quantized).shape.multiplied / (2 * 989e12)
    )
    assert slow.step(*prompt).matrices_s == pytest.approx(
        8192 * 2 * make_card(quantized).shape.multiplied / 312e12
    )


def test_every_accelerator_of_the_table_is_found_and_has_peaks():
    for name in accelerator_names():
        found = find_accelerator(f"NVIDIA {name}" if not name.startswith("MI") else name)
        assert found.name == name
        assert all(map(math.isfinite, (found.flops_per_s, found.bytes_per_s)))


def test_an_unknown_accelerator_names_the_known_ones():
    with pytest.raises(ConfigError, match="H100, "):
        find_accelerator("TPU v9")
