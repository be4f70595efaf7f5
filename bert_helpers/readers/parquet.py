"""Parquet, recognised by its suffix."""

import json
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Dataset, Features

from bert_helpers.errors import DataError
from bert_helpers.readers.folders import UNPACKED
from bert_helpers.readers.hub import innermost_reason
from bert_helpers.readers.source import Format, Reading, check_width, plain_features, to_dataset


def read_parquet(path: Path, reading: Reading) -> Dataset:
    """Read the rows of a Parquet file; of the features that it declares, `plain_features` says which are used.

    Raises DataError for a file that is damaged, unpacks to far more than its size, or has values that Python lacks.
    """
    largest, batches = UNPACKED + 100 * path.stat().st_size, []
    try:
        with path.open("rb") as file:
            parquet = pq.ParquetFile(file)
            check_width(path, parquet.schema_arrow.names)
            for batch in parquet.iter_batches():
                batches.append(batch)
                if sum(batch.nbytes for batch in batches) > largest:
                    fix = "write it anew, without compression"
                    raise DataError(f"unpacks to more than {largest // 10**6} MB", source=path.name, fix=fix)
            table = pa.Table.from_batches(batches, parquet.schema_arrow)
        table.validate(full=True)
        for position, field in enumerate(table.schema):
            if pa.types.is_dictionary(field.type):
                values = table.column(position).cast(field.type.value_type)
                table = table.set_column(position, field.name, values)
            elif re.search("date|time", str(field.type)):
                table.column(position).to_pylist()  # fails for years and time zones unknown to Python
        json.loads((table.schema.metadata or {}).get(b"huggingface", b"{}"), object_hook=_check_classes)
        features = plain_features(table.schema, Features.from_arrow_schema(table.schema))
    except DataError:
        raise
    except Exception as error:  # a dozen types, depending on what is wrong in a file
        problem = f"not a readable Parquet file ({innermost_reason(error)})"
        raise DataError(problem, source=path.name, fix="write it anew") from error
    return to_dataset(table, features)


def _check_classes(fields: dict) -> None:
    """Refuse a number of classes without names: `datasets` would make up a name for each."""
    if "num_classes" in fields and not fields.get("names"):
        raise ValueError("a column has classes without names")


PARQUET = Format((".parquet",), read_parquet, is_text=False)
