"""Configurations of published models: those fields of their ``config.json`` that a card reads."""

from load_tests.planner.published import DEEPSEEK_V3, Config, decoder, gpt_oss

__all__ = ["DEEPSEEK_V3"]

LLAMA_2_7B = decoder("llama", 32, 4096, 11008, "32/32/128", 32000)
LLAMA_31_8B = decoder("llama", 32, 4096, 14336, "32/8/128", 128256)
LLAMA_31_70B = decoder("llama", 80, 8192, 28672, "64/8/128", 128256)
MISTRAL_7B = decoder("mistral", 32, 4096, 14336, "32/8/128", 32000) | {"sliding_window": 4096}
QWEN_25_7B = decoder("qwen2", 28, 3584, 18944, "28/4/128", 152064) | {
    "sliding_window": 131072,
    "use_sliding_window": False,
    "max_window_layers": 28,
}
QWEN3_8B = decoder("qwen3", 36, 4096, 12288, "32/8/128", 151936)
QWEN3_30B_A3B = decoder("qwen3_moe", 48, 2048, 6144, "32/4/128", 151936) | {
    "num_experts": 128,
    "num_experts_per_tok": 8,
    "moe_intermediate_size": 768,
    "decoder_sparse_step": 1,
    "mlp_only_layers": [],
}
MIXTRAL_8X7B = decoder("mixtral", 32, 4096, 14336, "32/8/128", 32000) | {
    "num_local_experts": 8,
    "num_experts_per_tok": 2,
}
GEMMA_3_27B: Config = {
    "model_type": "gemma3",
    "dtype": "bfloat16",
    "text_config": decoder("gemma3_text", 62, 5376, 21504, "32/16/128", 262208)
    | {"sliding_window": 1024, "sliding_window_pattern": 6, "tie_word_embeddings": True},
}
GPT_OSS_20B = gpt_oss(24, 32)
QWEN3_NEXT_80B = decoder("qwen3_next", 48, 2048, 5120, "16/2/256", 151936) | {
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
