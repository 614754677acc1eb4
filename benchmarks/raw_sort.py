"""`python -m benchmarks.raw_sort LOG MEMORY_MB`: sort and write a log, the minimal work of a stage."""

import sys
from pathlib import Path

import duckdb

_SHARE = 0.75
"""Share of the memory, as in elcrec.adapters.duckdb_engine."""


def main(log: str, memory_mb: str) -> int:
    """Sort a CSV by user and time into sorted.parquet in the working directory."""
    spill = Path(".raw.partial") / "temporary"
    spill.mkdir(parents=True, exist_ok=True)
    settings: dict[str, str | bool | int | float | list[str]] = {
        "memory_limit": f"{int(int(memory_mb) * _SHARE)}MB",
        "threads": 1,
        "temp_directory": str(spill),
    }
    columns = "{'user_id': 'VARCHAR', 'item_id': 'VARCHAR', 'timestamp': 'BIGINT'}"
    read = f"read_csv('{log}', header = true, auto_detect = false, columns = {columns})"
    with duckdb.connect(config=settings) as connection:
        connection.execute(
            f"COPY (SELECT * FROM {read} ORDER BY user_id, timestamp) TO 'sorted.parquet' (COMPRESSION zstd)"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
