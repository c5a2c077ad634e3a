"""Checks a vault by docs/vault.md alone: check_vault.py VAULT

Every receipt's checksum, every object's SHA-256, every fingerprint. Nothing of cdrvault takes part.
Prints how much was checked; exit status 1 at the first thing that is not as the page says."""

import decimal
import hashlib
import json
import os
import re
import struct
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

vault = sys.argv[1]
SELF = b',"self-sha256":"'
MODULUS = 1 << 128


def path(*parts):
    return os.path.join(vault, *parts)


def read(name):
    with open(path(name), "rb") as file:
        return file.read()


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def seed(column, kind):
    return xxhash.xxh3_64_intdigest(column.encode() + b"\0" + bytes([kind]))


def canonical(type_, values):
    """The kind and the canonical bytes of each value of a column."""
    if pa.types.is_timestamp(type_):
        return [(6, struct.pack("<q", v)) for v in values]
    if pa.types.is_date(type_):
        return [(7, struct.pack("<q", v)) for v in values]
    if pa.types.is_integer(type_):
        return [(2, struct.pack("<Q", v)) if v is not None and v >= 1 << 63 else (1, v if v is None else struct.pack("<q", v))
                for v in values]
    if pa.types.is_floating(type_):
        return [(3, struct.pack("<d", v)) for v in values]
    if pa.types.is_decimal(type_):
        with decimal.localcontext() as context:
            context.prec = 100
            unscaled = [int(v.scaleb(type_.scale)) for v in values]
        return [(4, v.to_bytes(32, "little", signed=True) + struct.pack("b", type_.scale)) for v in unscaled]
    return [(5, v.encode() if isinstance(v, str) else v) for v in values]


def cells(name, column):
    """The hash of each cell of a column."""
    type_ = column.type
    if pa.types.is_timestamp(type_):
        assert type_.unit == "us"
        plain = column.cast(pa.int64())
    elif pa.types.is_date(type_):
        plain = column.cast(pa.int32())
    else:
        plain = column
    values = plain.to_pylist()
    there = [v for v in values if v is not None]
    hashes = iter([xxhash.xxh3_128_intdigest(data, seed=seed(name, kind)) for kind, data in canonical(type_, there)])
    null = xxhash.xxh3_128_intdigest(b"", seed=seed(name, 0))
    return [null if v is None else next(hashes) for v in values]


def of_rows(table, without):
    sums = [0] * table.num_rows
    for name in table.column_names:
        if name not in without:
            sums = [a + b for a, b in zip(sums, cells(name, table.column(name)))]
    rows = [xxhash.xxh3_128_intdigest((s % MODULUS).to_bytes(16, "little")) for s in sums]
    return f"{table.num_rows}-{sum(rows) % MODULUS:032x}"


def of_entries(entries):
    keys = ["path", "kind", "target", "mode", "uid", "gid", "mtime", "size", "sha256", "xattrs", "sparse", "linked-to"]
    total = 0
    for entry in entries:
        text = json.dumps({k: entry[k] for k in keys if k in entry}, ensure_ascii=False, separators=(",", ":"))
        total += xxhash.xxh3_128_intdigest(text.encode())
    return f"{len(entries)}-{total % MODULUS:032x}"


def live_path(receipt, name):
    if receipt["partition"] == "snapshot":
        return f"{receipt['dataset']}/{name}"
    return f"{receipt['dataset']}/day={receipt['partition']}/{name}"


def check_receipt(name):
    text = read(name)
    body, own = text[:-82], text[-82:]
    assert own == SELF + sha256(body + b"}").encode() + b'"}', f"{name}: its checksum is wrong"
    receipt = json.loads(text)
    assert receipt["format"] in (1, 2)
    found = re.fullmatch(r"\.cdrvault/manifests/([^/]+)/([^/]+)/g(\d{4,})\.json", name).groups()
    assert found == (receipt["dataset"], receipt["partition"], f"{receipt['generation']:04}"), name
    return receipt


def encodings_of(receipt):
    """Those of the live object, which format 1 has in its name alone."""
    content = receipt["content"]["object"]
    if receipt["format"] > 1:
        return content.get("encodings", [])
    name, found = content["path"], []
    while name.endswith(".zst"):
        name, found = name.removesuffix(".zst"), ["zstd"] + found
    return ["parquet"] + found if "tripwire" in receipt else found


def undo(data, encodings):
    for encoding in reversed(encodings):
        assert encoding == "zstd", encoding
        data = pa.input_stream(pa.BufferReader(data), compression="zstd").read()
    return data


def check_object(receipt):
    content = receipt["content"]["object"]
    encodings = encodings_of(receipt)
    assert content["path"] == live_path(receipt, content["path"].rsplit("/")[-1])
    kept = ".cdrvault/versions/{dataset}/{partition}/g{generation:04}-".format(**receipt) + content["sha256"][:12] + ".kept"
    names = [name for name in (content["path"], kept) if os.path.exists(path(name)) and sha256(read(name)) == content["sha256"]]
    if not names:
        return False
    data = read(names[0])
    assert len(data) == content["bytes"]
    if "tripwire" not in receipt:
        plain = undo(data, encodings)
        entry = {"path": content["path"].rsplit("/")[-1], "kind": "file", "mode": 384, "uid": 0, "gid": 0, "mtime": [0, 0],
                 "size": len(plain), "sha256": sha256(plain)}
        assert receipt["fingerprint"]["content"] == of_entries([entry]), names[0]
        return True
    assert encodings[0] == "parquet"
    data = undo(data, encodings[1:])
    footer = 8 + int.from_bytes(data[-8:-4], "little")
    assert sha256(data[:-footer]) == content["data-sha256"], names[0]
    file = pq.ParquetFile(pa.BufferReader(data))
    said = {k.decode(): v.decode() for k, v in file.metadata.metadata.items()}
    table = file.read()
    assert table.num_rows == receipt["rows"] == int(said["cdrvault.rows"])
    assert (said["cdrvault.dataset"], said["cdrvault.partition"]) == (receipt["dataset"], receipt["partition"])
    assert int(said["cdrvault.generation"]) == receipt["generation"]
    assert json.loads(said["cdrvault.columns"]) == receipt["columns"]
    assert [c["name"] for c in receipt["columns"]] + ["__raw"] == table.column_names
    renumbered = [name for name in said["cdrvault.renumbered"].split(",") if name]
    assert receipt["fingerprint"]["algorithm"] == "xxh3-128-sum/1"
    assert receipt["fingerprint"]["full"] == of_rows(table, []), names[0]
    assert receipt["fingerprint"]["content"] == of_rows(table, renumbered), names[0]
    for column, total in receipt["tripwire"]["sums"].items():
        values = [v for v in table.column(column).to_pylist() if v is not None]
        wanted = sum(v if isinstance(v, int) else len(v.encode() if isinstance(v, str) else v) for v in values)
        assert total is None or int(total) == wanted, f"{names[0]} {column}"
    return True


def check_tree(receipt):
    entries = receipt["content"]["tree"]["entries"]
    assert receipt["rows"] == len(entries)
    plain = {}
    for stored in (entry["stored"] for entry in entries if "stored" in entry):
        data = read(f".cdrvault/objects/{stored['sha256'][:2]}/{stored['sha256']}")
        assert len(data) == stored["bytes"] and sha256(data) == stored["sha256"]
        encodings = stored.get("encodings" if receipt["format"] > 1 else "encoding", [])
        plain[stored["sha256"], tuple(encodings)] = undo(data, encodings)
    for entry in (entry for entry in entries if "stored" in entry):
        stored = entry["stored"]
        data = plain[stored["sha256"], tuple(stored.get("encodings" if receipt["format"] > 1 else "encoding", []))]
        assert (sha256(data), len(data)) == (entry["sha256"], entry["size"]), entry["path"]
    assert receipt["fingerprint"]["content"] == receipt["fingerprint"]["full"] == of_entries(entries)




def check_sealed(name):
    text = read(name)
    body, own = text[:-82], text[-82:]
    assert own == SELF + sha256(body + b"}").encode() + b'"}', f"{name}: its checksum is wrong"
    return json.loads(text)


def check_indexes():
    directory = path(".cdrvault/index")
    for name in sorted(os.listdir(directory)) if os.path.isdir(directory) else []:
        index = check_sealed(f".cdrvault/index/{name}")
        assert (index["format"], index["dataset"]) == (1, name.removesuffix(".json"))
        for partition, generations in index["generations"].items():
            for generation in generations:
                receipt = f".cdrvault/manifests/{index['dataset']}/{partition}/g{generation:04}.json"
                assert os.path.exists(path(receipt)), f"{receipt}: the index names it"


assert check_sealed(".cdrvault/vault.json")["format"] in (1, 2)
if os.path.exists(path(".cdrvault/vault-copy.json")):
    assert read(".cdrvault/vault-copy.json") == read(".cdrvault/vault.json")
check_indexes()
counts = {"objects": 0, "trees": 0}
for directory, _, names in sorted(os.walk(path(".cdrvault/manifests"))):
    receipts = [check_receipt(os.path.relpath(os.path.join(directory, name), vault)) for name in sorted(names)]
    for receipt in receipts:
        if "tree" in receipt["content"]:
            check_tree(receipt)
            counts["trees"] += 1
        elif check_object(receipt):
            counts["objects"] += 1
        else:
            # Pruned, or read before its day had ended: but never the newest.
            assert receipt is not max(receipts, key=lambda receipt: receipt["generation"]), f"{directory}: its object is missing"
print("{objects} objects, {trees} trees".format(**counts))
