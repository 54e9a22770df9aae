"""What :mod:`load_tests.bench_tracing` measures beside whole platforms."""
