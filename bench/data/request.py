"""How to load a data set, said so that another process or a finished run can load it again."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from bench.basics.settings import from_table
from bench.data.dataset import Dataset
from bench.data.loading import load_dataset
from bench.data.table_options import TableOptions


@dataclass(frozen=True)
class DataRequest:
    """How to load a data set, in this process or another."""

    name: str
    data_dir: Path | None = None
    sensitive: str | None = None
    table: TableOptions | None = None
    immutable: tuple[str, ...] = ()

    @classmethod
    def of_run(cls, configuration: Mapping[str, Any], name: str, data_dir: Path | None) -> "DataRequest":
        """Return how a finished run (its ``configuration`` in run.json) loaded a data set."""
        table = configuration.get("table")
        return cls(
            name,
            data_dir,
            configuration.get("sensitive"),
            None if table is None else from_table(TableOptions, table, "the table options in run.json"),
            tuple(configuration.get("immutable") or ()),
        )

    def record(self) -> dict[str, Any]:
        """Return what run.json needs to know, for ``of_run``."""
        return {
            "sensitive": self.sensitive,
            **({"table": self.table} if self.table else {}),
            **({"immutable": self.immutable} if self.immutable else {}),
        }


@lru_cache(maxsize=1)
def cached_dataset(request: DataRequest) -> Dataset:
    """Load a data set, the last one kept, since a process tends to need one several times in a row."""
    return load_dataset(
        request.name,
        data_dir=request.data_dir,
        sensitive=request.sensitive,
        table=request.table,
        immutable=request.immutable,
    )
