"""Prints the columns that the test added, as pyarrow sees them: site_columns.py FILE"""

import sys

import pyarrow.parquet as pq

table = pq.ParquetFile(sys.argv[1]).read()
for field in table.schema:
    if not field.name.startswith("site_") or field.name == "site_uuid":
        continue
    values = {repr(v) if not hasattr(v, "isoformat") else str(v) for v in table.column(field.name).to_pylist()}
    print(field.name, field.type, *sorted(values))
assert "site_sum" not in table.schema.names
uuids = table.column("site_uuid").to_pylist()
assert all(len(value) == 16 for value in uuids) and len(set(uuids)) == len(uuids)
assert set(table.column("__raw").to_pylist()) == {None}
print("no site_sum, site_uuid of 16 bytes, raw empty")
