"""Weights in fewer bits, in the format that vLLM and transformers load."""
