"""Published throughputs, with their source and what is known of how they were measured.

All are NVIDIA's own (TensorRT-LLM, docs, "perf-overview"): offline, all requests at once, random
tokens, so nothing is cached; output tokens per second. Version 1.0 (commit 00f37686) gives them for
the replica, version 1.2 (commit 03e27c7d) for one device. Weights are FP8 (gpt-oss: MXFP4 as its
makers ship it), the KV cache FP8 where the checkpoint says so, and all of a stream's KV is
reserved before it begins. Configurations are those of the models' ``config.json``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from weir.planner.roofline import Layout

Config = dict[str, Any]
_FP8 = {"quantization_config": {"quant_method": "fp8"}}
_V1 = "TensorRT-LLM 1.0, docs/source/performance/perf-overview.md"
_V12 = "TensorRT-LLM 1.2, docs/source/developer-guide/perf-overview.md"


@dataclass(frozen=True, slots=True)
class Published:
    """Figures of one model on one kind of device. ``rows``: prompt tokens, output tokens, output
    tokens per second of the replica. ``fitted``: the efficiencies were fitted on them."""

    name: str
    config: Config
    kv_dtype: str | None
    accelerator: str
    layout: Layout
    rows: tuple[tuple[int, int, float], ...]
    source: str
    fitted: bool = False


def decoder(kind: str, layers: int, hidden: int, inner: int, heads: str, vocab: int) -> Config:
    """A dense decoder's fields; ``heads``: of queries, of keys and values, and their size."""
    queries, kv, size = map(int, heads.split("/"))
    return {
        "model_type": kind,
        "num_hidden_layers": layers,
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_attention_heads": queries,
        "num_key_value_heads": kv,
        "head_dim": size,
        "vocab_size": vocab,
        "dtype": "bfloat16",
        "tie_word_embeddings": False,
    }


LLAMA_8B = decoder("llama", 32, 4096, 14336, "32/8/128", 128256) | _FP8
LLAMA_70B = decoder("llama", 80, 8192, 28672, "64/8/128", 128256) | _FP8
LLAMA_405B = decoder("llama", 126, 16384, 53248, "128/8/128", 128256) | _FP8
QWEN3_235B = (
    decoder("qwen3_moe", 94, 4096, 12288, "64/4/128", 151936)
    | _FP8
    | {
        "num_experts": 128,
        "num_experts_per_tok": 8,
        "moe_intermediate_size": 1536,
        "decoder_sparse_step": 1,
        "mlp_only_layers": [],
    }
)


def gpt_oss(layers: int, experts: int) -> Config:
    """gpt-oss, in MXFP4 as it is shipped."""
    return decoder("gpt_oss", layers, 2880, 2880, "64/8/64", 201088) | {
        "attention_bias": True,
        "num_local_experts": experts,
        "num_experts_per_tok": 4,
        "sliding_window": 128,
        "layer_types": ["sliding_attention", "full_attention"] * (layers // 2),
        "quantization_config": {"quant_method": "mxfp4"},
    }


DEEPSEEK_V3: Config = {
    "model_type": "deepseek_v3",
    "num_hidden_layers": 61,
    "hidden_size": 7168,
    "intermediate_size": 18432,
    "moe_intermediate_size": 2048,
    "num_attention_heads": 128,
    "num_key_value_heads": 128,
    "kv_lora_rank": 512,
    "q_lora_rank": 1536,
    "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64,
    "v_head_dim": 128,
    "n_routed_experts": 256,
    "n_shared_experts": 1,
    "num_experts_per_tok": 8,
    "first_k_dense_replace": 3,
    "topk_method": "noaux_tc",
    "vocab_size": 129280,
    "torch_dtype": "bfloat16",
    "tie_word_embeddings": False,
}
DEEPSEEK_R1 = DEEPSEEK_V3 | _FP8

_LENGTHS = (
    (128, 128),
    (128, 2048),
    (128, 4096),
    (500, 2000),
    (1000, 1000),
    (1000, 2000),
    (2048, 128),
    (2048, 2048),
    (5000, 500),
    (20000, 2000),
)


def _table(*figures: float | None) -> tuple[tuple[int, int, float], ...]:
    pairs = zip(_LENGTHS, figures, strict=True)
    return tuple((*lengths, figure) for lengths, figure in pairs if figure is not None)


def _each(devices: int, *rows: tuple[int, int, float]) -> tuple[tuple[int, int, float], ...]:
    return tuple((prompt, output, figure * devices) for prompt, output, figure in rows)


PUBLISHED = (
    Published(
        "Llama-3.1-8B",
        LLAMA_8B,
        "fp8",
        "H100",
        Layout(),
        _table(28312, 22714, 14325, 17660, 15220, 13899, 3450, 9305, 3459, 1351),
        _V1,
        fitted=True,
    ),
    Published(
        "Llama-3.3-70B",
        LLAMA_70B,
        "fp8",
        "H100",
        Layout(2),
        _table(6378, 6651, 4199, 5222, 4205, 4146, 762, 3082, 898, 437),
        _V1,
        fitted=True,
    ),
    Published(
        "Llama-3.1-8B",
        LLAMA_8B,
        "fp8",
        "H200",
        Layout(),
        _table(27911, 26221, 18027, 20770, 17744, 16828, 3538, 12194, 3902, 1804),
        _V1,
    ),
    Published(
        "Llama-3.3-70B",
        LLAMA_70B,
        "fp8",
        "H200",
        Layout(),
        _table(3803, 4336, 2872, 3666, 2909, 2994, 442, 2003, 566, 283),
        _V1,
    ),
    Published(
        "Llama-3.1-405B",
        LLAMA_405B,
        "fp8",
        "H200",
        Layout(8),
        _table(3814, 5348, 4741, 4724, 3330, 3722, 456, 2948, 650, 505),
        _V1,
    ),
    Published(
        "Llama-3.1-405B",
        LLAMA_405B,
        "fp8",
        "H100",
        Layout(8),
        _table(3627, 4340, 3116, 3994, 2919, 2895, 453, 2296, 610, 345),
        _V1,
        fitted=True,
    ),
    Published(
        "Qwen3-235B-A22B",
        QWEN3_235B,
        "fp8",
        "H200",
        Layout(8),
        _table(30429, 42821, 26852, 28026, 23789, 22061, 3331, 16672, 3623, 1876),
        _V1,
    ),
    Published(
        "Qwen3-235B-A22B",
        QWEN3_235B,
        "fp8",
        "H100",
        Layout(8),
        _table(None, 19658, 12447, 18351, 14898, 15136, None, 9924, 3225, None),
        _V1,
    ),
    Published(
        "gpt-oss-20b",
        gpt_oss(24, 32),
        None,
        "H100",
        Layout(),
        _each(1, (1000, 1000, 11557), (1024, 8192, 8617), (8192, 1024, 3366), (32768, 1024, 785)),
        _V12,
        fitted=True,
    ),
    Published(
        "gpt-oss-120b",
        gpt_oss(36, 128),
        None,
        "H200",
        Layout(),
        _each(1, (1000, 1000, 6868), (1024, 8192, 3543), (8192, 1024, 1828), (32768, 1024, 519)),
        _V12,
    ),
    Published(
        "DeepSeek-R1",
        DEEPSEEK_R1,
        None,
        "H200",
        Layout(data=8),
        _each(8, (1000, 1000, 1627), (1024, 8192, 1218), (1024, 32768, 438)),
        _V12,
    ),
)
