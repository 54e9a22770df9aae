"""``python -m load_tests.faults``: the same as ``weir bench faults``."""

from load_tests.bench_faults import main

if __name__ == "__main__":
    raise SystemExit(main())
