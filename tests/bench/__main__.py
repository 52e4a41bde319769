"""Run a benchmark by its name."""

import sys

from tests.bench import extract

BENCHMARKS = {"extract": extract.main, "decode": extract.decode, "assemble": extract.assemble, "read": extract.read}

if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1] not in BENCHMARKS:
        sys.exit(f"usage: python -m tests.bench {{{','.join(BENCHMARKS)}}} [options]")
    BENCHMARKS[sys.argv[1]](sys.argv[2:])
