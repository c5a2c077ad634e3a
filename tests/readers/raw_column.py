"""The `__raw` column: a CBOR map (RFC 8949) from column name to the bytes that the typed column cannot hold."""


def decode(cell):
    """Decodes one cell into a dictionary; raises ValueError for anything else than a map of text to bytes."""
    pairs, at = _head(cell, 0, 5)
    values = {}
    for _ in range(pairs):
        length, at = _head(cell, at, 3)
        name, at = cell[at : at + length].decode(), at + length
        length, at = _head(cell, at, 2)
        values[name], at = cell[at : at + length], at + length
    if at != len(cell):
        raise ValueError("bytes after the map")
    return values


def _head(cell, at, major):
    if at >= len(cell) or cell[at] >> 5 != major:
        raise ValueError(f"no CBOR item of type {major} at byte {at} of {cell!r}")
    short = cell[at] & 31
    if short < 24:
        return short, at + 1
    if short > 27:
        raise ValueError(f"indefinite length at byte {at} of {cell!r}")
    size = 1 << (short - 24)
    return int.from_bytes(cell[at + 1 : at + 1 + size], "big"), at + 1 + size
