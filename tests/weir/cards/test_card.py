"""Cards of known models against the numbers that were published of them."""

import importlib.util
import json
import math
from pathlib import Path
from types import ModuleType

import pytest

from weir.cards import CardError, make_card, read_card, read_shape

GIB = 2**30


def _configs() -> ModuleType:
    spec = importlib.util.spec_from_file_location("configs", Path(__file__).with_name("configs.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


known = _configs()
TEACHER = Path(__file__).parents[3] / "platform/weir/artifacts/teacher"


@pytest.mark.parametrize(
    ("config", "parameters"),
    [
        (known.LLAMA_2_7B, 6_738_415_616),
        (known.LLAMA_31_8B, 8_030_261_248),
        (known.LLAMA_31_70B, 70_553_706_496),
        (known.MISTRAL_7B, 7_241_732_096),
        (known.QWEN_25_7B, 7_615_616_512),
        (known.QWEN3_8B, 8_190_735_360),
        (known.QWEN3_30B_A3B, 30_532_122_624),
        (known.MIXTRAL_8X7B, 46_702_792_704),
        (known.GEMMA_3_27B, 27_009_346_304),
        (known.GPT_OSS_20B, 20_914_757_184),
    ],
)
def test_parameters_are_those_of_the_published_weights(config, parameters):
    assert read_shape(config).parameters == parameters


@pytest.mark.parametrize(
    ("config", "total", "active"),
    [
        (known.QWEN3_30B_A3B, 30.5e9, 3.3e9),
        (known.MIXTRAL_8X7B, 46.7e9, 12.9e9),
        (known.GPT_OSS_20B, 20.9e9, 3.6e9),
        (known.DEEPSEEK_V3, 671e9, 37e9),
    ],
)
def test_experts_count_as_many_as_a_token_meets(config, total, active):
    shape = read_shape(config)
    assert shape.parameters == pytest.approx(total, rel=0.01)
    assert shape.active_parameters == pytest.approx(active, rel=0.08)


def test_a_hybrid_model_with_experts():
    shape = read_shape(known.QWEN3_NEXT_80B)
    assert shape.parameters == pytest.approx(80e9, rel=0.01)
    assert shape.multiplied == pytest.approx(3e9, rel=0.1)  # "A3B"


@pytest.mark.parametrize(
    ("config", "each", "kinds"),
    [
        (known.LLAMA_2_7B, 524_288, "32 × mha"),
        (known.LLAMA_31_8B, 131_072, "32 × gqa"),
        (known.LLAMA_31_70B, 327_680, "80 × gqa"),
        (known.QWEN_25_7B, 57_344, "28 × gqa"),
        (known.QWEN3_30B_A3B, 98_304, "48 × gqa"),
        (known.MISTRAL_7B, 131_072, "32 × window 4096"),
        (known.DEEPSEEK_V3, 70_272, "61 × mla"),
        (known.GEMMA_3_27B, 507_904, "52 × window 1024, 10 × gqa"),
        (known.GPT_OSS_20B, 49_152, "12 × window 128, 12 × gqa"),
        (known.QWEN3_NEXT_80B, 24_576, "36 × state, 12 × gqa"),
    ],
)
def test_kv_bytes_per_token_by_kind_of_attention(config, each, kinds):
    card = make_card(config)
    assert (card.kv_bytes_per_token, card.attention) == (each, kinds)
    assert make_card(config, kv_dtype="fp8").kv_bytes_per_token * 2 == each


def test_llama_8b_in_80_gib():
    card = make_card(known.LLAMA_31_8B)
    room = 72 * GIB - card.weight_bytes
    assert card.weight_bytes == 16_060_522_496
    assert card.block_bytes == 2 * 2**20
    assert card.most_tokens(room) == room // 131_072 // 16 * 16
    assert card.most_requests(room, 8192) == room // GIB  # 8192 tokens are one GiB


def test_windows_end_the_growth_and_states_do_not_grow():
    mistral, gemma = make_card(known.MISTRAL_7B), make_card(known.GEMMA_3_27B)
    assert mistral.request_bytes(4096) == mistral.request_bytes(32768)
    assert gemma.long_kv_bytes_per_token == 10 * 2 * 16 * 128 * 2
    assert gemma.request_bytes(2048) - gemma.request_bytes(1024) == (
        1024 * gemma.long_kv_bytes_per_token
    )
    hybrid = make_card(known.QWEN3_NEXT_80B)
    state = 36 * (32 * 128 * 128 + 3 * 8192) * 2
    assert hybrid.request_bytes(16) == state + 16 * 24_576


def test_prefill_is_linear_for_short_prompts_and_quadratic_for_long_ones():
    card = make_card(known.LLAMA_31_8B)
    assert card.prefill_flops(1) == pytest.approx(2 * 7.5e9, rel=0.01)
    thousand = card.prefill_flops(1000)
    assert thousand == pytest.approx(1000 * 2 * 6.98e9, rel=0.03)
    pairs = 32 * 4 * 32 * 128
    bend = card.attention_tokens
    assert bend == pytest.approx(2 * 6.98e9 / pairs, rel=0.01)
    one_more = card.prefill_flops(1, round(bend)) - 2 * card.shape.head
    assert one_more == pytest.approx(2 * 2 * card.shape.multiplied, rel=0.001)
    # In two pieces, the second behind the first, the same is computed.
    whole, head = card.prefill_flops(4096), 2 * card.shape.head
    assert card.prefill_flops(1024) + card.prefill_flops(3072, 1024) == whole + head


def test_a_window_makes_long_prefills_linear():
    card = make_card(known.MISTRAL_7B)
    assert card.attention_tokens == math.inf
    first, second = card.prefill_flops(1, 5000), card.prefill_flops(1, 50_000)
    assert first == second > card.prefill_flops(1, 100)


def test_a_decode_step_reads_the_weights_once_and_every_context():
    card = make_card(known.LLAMA_31_8B)
    alone, many = card.decode_bytes(1, 1000), card.decode_bytes(64, 1000)
    assert alone == pytest.approx(15.0e9 + 1001 * 131_072, rel=0.01)  # no embedding
    assert many - alone == 63 * 1001 * 131_072
    assert card.decode_flops(64, 1000) == 64 * card.decode_flops(1, 1000)


def test_more_tokens_touch_more_experts():
    card = make_card(known.MIXTRAL_8X7B)
    one, all_of_them = card.step_weight_bytes(1), card.step_weight_bytes(1000)
    assert one == pytest.approx(2 * 12.7e9, rel=0.02)
    assert all_of_them == pytest.approx(2 * 46.5e9, rel=0.02)


@pytest.mark.parametrize(
    ("quantization", "name", "gigabytes"),
    [
        ({"quant_method": "awq", "bits": 4, "group_size": 128}, "awq (4 bits)", 5.7),
        ({"quant_method": "fp8"}, "fp8 (8 bits)", 9.08),
        (
            {
                "quant_method": "compressed-tensors",
                "config_groups": {"group_0": {"weights": {"num_bits": 8, "group_size": None}}},
            },
            "compressed-tensors (8 bits)",
            9.08,
        ),
    ],
)
def test_quantized_weights(quantization, name, gigabytes):
    card = make_card(known.LLAMA_31_8B | {"quantization_config": quantization})
    assert card.weights.name == name
    assert card.weight_bytes / 1e9 == pytest.approx(gigabytes, rel=0.01)


def test_gpt_oss_is_as_large_as_its_files():
    assert make_card(known.GPT_OSS_20B).weight_bytes / 1e9 == pytest.approx(13.8, rel=0.02)


def test_the_teacher_as_it_is_on_disk():
    card = read_card(TEACHER, block_size=16)
    with (TEACHER / "model.safetensors").open("rb") as file:
        header = int.from_bytes(file.read(8), "little")
    data = (TEACHER / "model.safetensors").stat().st_size - 8 - header
    assert card.weight_bytes == data
    assert card.kv_bytes_per_token == 5 * 2 * 2 * 64 * 2


def test_what_cannot_be_read_is_said(tmp_path):
    with pytest.raises(CardError, match=r"config\.json cannot be read"):
        read_card(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "mamba", "vocab_size": 3}))
    with pytest.raises(CardError, match=r"\(mamba\).*hidden_size"):
        read_card(tmp_path)
    with pytest.raises(CardError, match="'int3' is not a data type"):
        make_card(known.LLAMA_31_8B, kv_dtype="int3")
