"""Check the bytes of an ONNX graph before a runtime reads them, without the onnx package.

An ONNX file is a protobuf message (https://protobuf.dev/programming-guides/encoding); this walks the parts of it that
can name operators and files (onnx/onnx.proto) and skips the rest. It sees every occurrence of a field, also of those
that a message should hold once.
"""

from __future__ import annotations

from collections.abc import Iterator

from vat_explain.errors import BundleError

DOMAINS = frozenset({"", "ai.onnx", "com.microsoft"})
"""Operators that ONNX Runtime brings itself."""

FORBIDDEN_OPERATORS = frozenset({"EPContext"})
"""Operators of these domains that name files to load."""

MAX_DEPTH = 32
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5

# Message kind -> field number -> what it holds: another kind, a domain, an operator, a place of external data, or
# something that exports have no use for.
_FIELDS: dict[str, dict[int, str]] = {
    "model": {7: "graph", 8: "opset", 20: "unexpected", 25: "unexpected"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {4: "operator", 5: "attribute", 7: "domain"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {13: "external"},
    "opset": {1: "domain"},
}


def check_graph(data: bytes, external: str | None = None) -> None:
    """Refuse a graph that a runtime should not load.

    Parameters
    ----------
    data : bytes
        The ONNX file.
    external : str, optional
        The one file that weights may lie in.

    Raises
    ------
    BundleError
        If it is no ONNX file, uses operators of other domains than `DOMAINS`, or names files other than `external`.
    """
    try:
        _check(memoryview(data), "model", external, 0)
    except (IndexError, ValueError) as error:
        if isinstance(error, BundleError):
            raise
        raise BundleError(f"the graph is no ONNX file ({error}); export the bundle anew") from error


def _check(message: memoryview, kind: str, external: str | None, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise BundleError(f"the graph nests more than {MAX_DEPTH} levels deep, which exports do not; export it anew")
    for number, value in _fields(message):
        inner = _FIELDS[kind].get(number)
        if inner is None:
            continue
        if not isinstance(value, memoryview):
            raise ValueError(f"field {number} of a {kind} is a number")
        if inner == "domain":
            if (domain := _text(value)) not in DOMAINS:
                raise BundleError(
                    f"the graph uses operators of the domain {domain!r}, which could run code of others; allowed are "
                    f"{', '.join(repr(name) for name in sorted(DOMAINS))}"
                )
        elif inner == "operator":
            if (operator := _text(value)) in FORBIDDEN_OPERATORS:
                raise BundleError(f"the graph uses the operator {operator}, which loads other files; export it anew")
        elif inner == "external":
            _check_external(value, external)
        elif inner == "unexpected":
            raise BundleError("the graph defines functions or training steps, which exports do not; export it anew")
        else:
            _check(value, inner, external, depth + 1)


def _check_external(entry: memoryview, external: str | None) -> None:
    strings: dict[int, list[str]] = {1: [], 2: []}
    for number, value in _fields(entry):
        if number in strings and isinstance(value, memoryview):
            strings[number].append(_text(value))
    if "location" in strings[1] and (external is None or strings[2] != [external]):
        raise BundleError(
            f"the graph keeps weights in {strings[2]}, and only {external or 'the graph itself'} may hold them; "
            "export the bundle anew"
        )


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Yield the number and value of each field of a message; fixed-size values come as their bytes."""
    place = 0
    while place < len(message):
        key, place = _varint(message, place)
        if not 8 <= key < 1 << 32:  # runtimes cut a longer one off, and would see another field than this
            raise ValueError(f"field key {key}")
        number, wire = key >> 3, key & 7
        if wire == _VARINT:
            value, place = _varint(message, place)
            yield number, value
            continue
        if wire == _BYTES:
            size, place = _varint(message, place)
        elif wire in (_FIXED64, _FIXED32):
            size = 8 if wire == _FIXED64 else 4
        else:
            raise ValueError(f"wire type {wire}")
        if place + size > len(message):
            raise ValueError("a field ends after its message")
        yield number, message[place : place + size]
        place += size


def _varint(message: memoryview, place: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte = message[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place
    raise ValueError("a number of more than ten bytes")


def _text(value: memoryview) -> str:
    return bytes(value).decode()
