"""Configurations of published models: those fields of their ``config.json`` that a card reads."""

from typing import Any

Config = dict[str, Any]


def _decoder(kind: str, layers: int, hidden: int, inner: int, heads: str, vocab: int) -> Config:
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


LLAMA_2_7B = _decoder("llama", 32, 4096, 11008, "32/32/128", 32000)
LLAMA_31_8B = _decoder("llama", 32, 4096, 14336, "32/8/128", 128256)
LLAMA_31_70B = _decoder("llama", 80, 8192, 28672, "64/8/128", 128256)
MISTRAL_7B = _decoder("mistral", 32, 4096, 14336, "32/8/128", 32000) | {"sliding_window": 4096}
QWEN_25_7B = _decoder("qwen2", 28, 3584, 18944, "28/4/128", 152064) | {
    "sliding_window": 131072,
    "use_sliding_window": False,
    "max_window_layers": 28,
}
QWEN3_8B = _decoder("qwen3", 36, 4096, 12288, "32/8/128", 151936)
QWEN3_30B_A3B = _decoder("qwen3_moe", 48, 2048, 6144, "32/4/128", 151936) | {
    "num_experts": 128,
    "num_experts_per_tok": 8,
    "moe_intermediate_size": 768,
    "decoder_sparse_step": 1,
    "mlp_only_layers": [],
}
MIXTRAL_8X7B = _decoder("mixtral", 32, 4096, 14336, "32/8/128", 32000) | {
    "num_local_experts": 8,
    "num_experts_per_tok": 2,
}
GEMMA_3_27B: Config = {
    "model_type": "gemma3",
    "dtype": "bfloat16",
    "text_config": _decoder("gemma3_text", 62, 5376, 21504, "32/16/128", 262208)
    | {"sliding_window": 1024, "sliding_window_pattern": 6, "tie_word_embeddings": True},
}
GPT_OSS_20B = _decoder("gpt_oss", 24, 2880, 2880, "64/8/64", 201088) | {
    "attention_bias": True,
    "num_local_experts": 32,
    "num_experts_per_tok": 4,
    "sliding_window": 128,
    "layer_types": ["sliding_attention", "full_attention"] * 12,
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
QWEN3_NEXT_80B = _decoder("qwen3_next", 48, 2048, 5120, "16/2/256", 151936) | {
    "full_attention_interval": 4,
    "linear_num_value_heads": 32,
    "linear_num_key_heads": 16,
    "linear_key_head_dim": 128,
    "linear_value_head_dim": 128,
    "linear_conv_kernel_dim": 4,
    "num_experts": 512,
    "num_experts_per_tok": 10,
    "moe_intermediate_size": 512,
    "shared_expert_intermediate_size": 512,
    "decoder_sparse_step": 1,
    "mlp_only_layers": [],
}
