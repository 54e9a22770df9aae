"""Distillation: a small causal model learns from a large one of the same tokenizer."""
