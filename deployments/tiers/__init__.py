"""KV blocks in host memory and on disk: vLLM's offloading, with a worker for CPUs and a disk tier
that is bounded, checked and survives its replica (ADR 36)."""
