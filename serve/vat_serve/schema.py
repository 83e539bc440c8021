"""What a client may send and what it gets back, in the shapes that clients of model servers use.

A body is one text (plain, or an object with options), a JSON list of them, or a body of KServe's V1 protocol or of
the Open Inference Protocol (V2). `read_call` turns each into a `Call`; `Call.answer` puts the results into the same
shape. ``schemas/request.schema.json`` and ``schemas/answer.schema.json`` describe both for clients.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from math import prod
from typing import Any, Literal, get_args

from vat_explain.errors import VatExplainError

SCHEMA_VERSION = 1
"""Version of the answers; raised when a reader of the old form could misread the new one."""

MAX_ID = 256
MAX_TOP_K = 10_000

Shape = Literal["single", "list", "v1", "v2"]
Field = Literal["scores", "words", "tokens", "class_scores", "reference"]
Output = Literal["label", "score", "scores", "explanation"]

DEFAULT_FIELDS: tuple[Field, ...] = ("words", "tokens", "reference")
PREDICTED = object()
"""Target of a call that leaves the class open where one is needed: the predicted one."""

_OPTIONS = ("id", "explain", "target", "method", "top_k", "return")
_TEXTS = ("text", "text_pair")
_REMEDY = 'send {"text": "..."} or a list of such objects as application/json, or plain text as text/plain'


class RequestError(VatExplainError):
    """A request that is answered with an error.

    Parameters
    ----------
    message : str
        For the client.
    code : str
        The kind of error, for programs.
    status : int
        HTTP status, 4xx.
    """

    def __init__(self, message: str, code: str = "invalid_request", status: int = 400) -> None:
        super().__init__(message)
        self.code = code
        self.status = status


@dataclass(frozen=True, kw_only=True)
class Item:
    """One text to predict and explain.

    Attributes
    ----------
    text, text_pair : str, str or None
    id : str or None
        The caller's name for it, given back.
    explain : bool
        Whether an explanation is wanted.
    target : str, int, None or `PREDICTED`
        Class to explain; None for class-free shares.
    method : str
    top_k : int or None
        Give back only so many words and tokens, the strongest first.
    fields : frozenset of str
        What to give back, of `Field`.
    """

    text: str
    text_pair: str | None = None
    id: str | None = None
    explain: bool = True
    target: object = None
    method: str = "vat"
    top_k: int | None = None
    fields: frozenset[str] = frozenset(DEFAULT_FIELDS)


@dataclass(frozen=True, kw_only=True)
class Call:
    """A body, read: its texts, and the shape that the answer has to take.

    Attributes
    ----------
    shape : {"single", "list", "v1", "v2"}
    items : tuple of Item
        At least one.
    explains : bool
        Whether the client called an explain address.
    id : str or None
        Of a V2 body as a whole.
    outputs : tuple of str
        Names of the outputs of a V2 answer.
    """

    shape: Shape
    items: tuple[Item, ...]
    explains: bool = False
    id: str | None = None
    outputs: tuple[str, ...] = ()

    def answer(self, results: Sequence[dict[str, Any]], model: Mapping[str, str]) -> object:
        """Put results, one for each item as `answer.schema.json` describes them, into the shape of the body.

        Parameters
        ----------
        results : sequence of dict
        model : mapping of str to str
            Name and version of the model, which V2 answers carry.
        """
        if self.shape == "single":
            return results[0]
        if self.shape == "list":
            return list(results)
        if self.shape == "v1":
            if not self.explains:
                return {"predictions": list(results)}
            predictions = [{k: v for k, v in result.items() if k != "explanation"} for result in results]
            return {"predictions": predictions, "explanations": [result["explanation"] for result in results]}
        body = {"model_name": model["name"], "model_version": model["version"]}
        outputs = [_output(name, results) for name in self.outputs]
        return body | ({} if self.id is None else {"id": self.id}) | {"outputs": outputs}


def read_body(body: object, content_type: str = "") -> object:
    """Decode a body as far as the server has not done so.

    Parameters
    ----------
    body : object
        Bytes, text, or parsed JSON.
    content_type : str
        What the client called it. Bytes called neither text nor JSON are read as JSON where they look like it.

    Raises
    ------
    RequestError
        If the body is empty, not UTF-8, or called JSON and is not.
    """
    if not isinstance(body, (bytes, bytearray)):
        return body
    if not body:
        raise RequestError("the body is empty; " + _REMEDY)
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        raise RequestError(f"the body is not UTF-8: byte {error.start} is wrong; encode it as UTF-8") from None
    kind = content_type.split(";")[0].strip().lower()
    if kind.startswith("text/") or not (kind.endswith("json") or text.lstrip()[:1] in ("{", "[")):
        return text
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise RequestError(
            "the body is not valid JSON; check quotes and brackets, or send plain text as text/plain", "invalid_json"
        ) from None


def read_call(body: object, *, explains: bool, max_texts: int | None = None) -> Call:
    """Read a decoded body.

    Parameters
    ----------
    body : object
        Parsed JSON, or a string: one plain text.
    explains : bool
        Whether the client called an explain address; the scores are then those of a class unless it says otherwise.
    max_texts : int, optional
        Most texts in the body.

    Raises
    ------
    RequestError
        If the body is not as the schema says, or holds more texts.
    """
    if isinstance(body, str):
        return Call(shape="single", items=(_item(body, {}, "the body", explains),), explains=explains)
    if isinstance(body, list):
        return Call(shape="list", items=_items(body, {}, "item", explains, max_texts), explains=explains)
    if not isinstance(body, dict):
        if body is None:
            raise RequestError("there is no body, or none of a content type that is read here; " + _REMEDY)
        raise RequestError(f"the body is a JSON {type(body).__name__}; {_REMEDY}")
    if "instances" in body:
        _known(body, ("instances", "parameters", "signature_name"), "the body")
        shared = _parameters(body)
        items = _items(body["instances"], shared, "instance", explains, max_texts)
        return Call(shape="v1", items=items, explains=explains)
    if "inputs" in body:
        return _read_v2(body, explains, max_texts)
    return Call(shape="single", items=(_item(body, {}, "the body", explains),), explains=explains)


def schema(name: Literal["request", "answer"]) -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of bodies that clients send, or of answers."""
    path = resources.files("vat_serve") / "schemas" / f"{name}.schema.json"
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def _items(
    values: object, shared: Mapping[str, Any], where: str, explains: bool, max_texts: int | None
) -> tuple[Item, ...]:
    if not isinstance(values, list) or not values:
        raise RequestError(f"{where}s must be a list of at least one text or object with a text")
    _check_count(values, max_texts)
    return tuple(_item(value, shared, f"{where} {number}", explains) for number, value in enumerate(values))


def _check_count(texts: Sequence[object], limit: int | None) -> None:
    """Refuse too many texts before anything is made of them."""
    if limit is not None and len(texts) > limit:
        raise RequestError(f"the body holds {len(texts)} texts, and {limit} are allowed; split it", "too_large", 413)


def _item(value: object, shared: Mapping[str, Any], where: str, explains: bool) -> Item:
    given = {"text": value} if isinstance(value, str) else value
    if not isinstance(given, dict):
        raise RequestError(f'{where} is a {type(value).__name__}; send a text, or an object as {{"text": "..."}}')
    _known(given, (*_TEXTS, *_OPTIONS), where)
    given = {**shared, **given}
    if not isinstance(given.get("text"), str):
        raise RequestError(f"{where} has no text; give it a string named text")
    pair = given.get("text_pair")
    if pair is not None and not isinstance(pair, str):
        raise RequestError(f"text_pair of {where} is a {type(pair).__name__}; it must be a string")
    explain = given.get("explain", True)
    if not isinstance(explain, bool):
        raise RequestError(f"explain of {where} must be true or false")
    if explains and not explain:
        raise RequestError(f"explain of {where} is false at an explain address; use the address for predictions")
    method = _method(given.get("method", "vat"), where)
    fields = _fields(given.get("return", list(DEFAULT_FIELDS)), where)
    if explain and "class_scores" in fields and (method != "vat" or not fields & {"words", "tokens"}):
        raise RequestError(
            f"return of {where} holds class_scores, which only the method vat has, for each of words or tokens; "
            "ask for one of these too, or leave class_scores out"
        )
    return Item(
        text=given["text"],
        text_pair=pair,
        id=_id(given.get("id"), where),
        explain=explain,
        target=_target(given, where, explains),
        method=method,
        top_k=_top_k(given.get("top_k"), where),
        fields=fields,
    )


def _read_v2(body: Mapping[str, Any], explains: bool, max_texts: int | None) -> Call:
    _known(body, ("id", "parameters", "inputs", "outputs"), "the body")
    inputs = body["inputs"]
    if not isinstance(inputs, list) or not inputs:
        raise RequestError("inputs must be a list with a tensor named text")
    columns: dict[str, list[str]] = {}
    for number, tensor in enumerate(inputs):
        name, values = _tensor(tensor, f"input {number}")
        if name in columns:
            raise RequestError(f"inputs name {name} twice; send each tensor once")
        columns[name] = values
    if "text" not in columns:
        raise RequestError("inputs lack the tensor named text; send it with datatype BYTES")
    texts, pairs = columns["text"], columns.get("text_pair")
    if pairs is not None and len(pairs) != len(texts):
        raise RequestError(f"text has {len(texts)} elements and text_pair {len(pairs)}; send as many of both")
    _check_count(texts, max_texts)
    rows = [{"text": text} if pairs is None else {"text": text, "text_pair": pairs[i]} for i, text in enumerate(texts)]
    items = _items(rows, _parameters(body), "element", explains, max_texts)
    outputs = _outputs(body.get("outputs"), items[0])
    items = tuple(
        replace(item, explain="explanation" in outputs, fields=item.fields | ({"scores"} & set(outputs)))
        for item in items
    )
    return Call(shape="v2", items=items, explains=explains, id=_id(body.get("id"), "the body"), outputs=outputs)


def _tensor(tensor: object, where: str) -> tuple[str, list[str]]:
    if not isinstance(tensor, dict):
        raise RequestError(f"{where} is a {type(tensor).__name__}; send an object with name, shape, datatype and data")
    _known(tensor, ("name", "shape", "datatype", "data", "parameters"), where)
    name, data, shape = tensor.get("name"), tensor.get("data"), tensor.get("shape")
    if name not in _TEXTS:
        raise RequestError(f"{where} must be named text or text_pair")
    if tensor.get("datatype") != "BYTES":
        raise RequestError(f"datatype of {name} must be BYTES")
    rows = data if isinstance(data, list) else [None]
    flat: list[Any] = [value for row in rows for value in (row if isinstance(row, list) else [row])]
    values = [value for value in flat if isinstance(value, str)]
    if len(values) < len(flat):
        raise RequestError(f"data of {name} must be a list of strings")
    sizes = shape if isinstance(shape, list) and 1 <= len(shape) <= 2 else [0]
    if not all(type(size) is int and size > 0 for size in sizes) or prod(sizes) != len(values):
        raise RequestError(f"shape of {name} must be [{len(values)}], the number of its strings, and not empty")
    return name, values


def _outputs(wanted: object, asked: Item) -> tuple[str, ...]:
    if wanted is None:
        return tuple(
            name
            for name in get_args(Output)
            if name in ("label", "score")
            or (name == "scores" and "scores" in asked.fields)
            or (name == "explanation" and asked.explain)
        )
    known = get_args(Output)
    entries = wanted if isinstance(wanted, list) else []
    names = [entry["name"] for entry in entries if isinstance(entry, dict) and entry.get("name") in known]
    if not names or len(names) < len(entries) or len(set(names)) < len(names):
        raise RequestError(f'outputs must be a list of objects such as {{"name": "label"}}; names: {", ".join(known)}')
    if "explanation" in names and not asked.explain:
        raise RequestError("outputs ask for the explanation and parameters switch it off; leave out one of the two")
    return tuple(names)


def _output(name: str, results: Sequence[dict[str, Any]]) -> dict[str, Any]:
    if name == "scores":
        rows = [list(result["scores"].values()) for result in results]
        labels = list(results[0]["scores"])
        data = [score for row in rows for score in row]
        shape = [len(rows), len(labels)]
        return {"name": name, "shape": shape, "datatype": "FP64", "data": data, "parameters": {"labels": labels}}
    values = [result[name] for result in results]
    if name == "explanation":
        values = [json.dumps(value, ensure_ascii=False, allow_nan=False) for value in values]
    return {"name": name, "shape": [len(values)], "datatype": "FP64" if name == "score" else "BYTES", "data": values}


def _parameters(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that all texts of a body share; lists may be written as strings with commas."""
    parameters = body.get("parameters", {})
    if not isinstance(parameters, dict):
        raise RequestError(f"parameters is a {type(parameters).__name__}; send an object")
    _known(parameters, tuple(name for name in _OPTIONS if name != "id"), "parameters")
    wanted = parameters.get("return")
    return parameters | ({"return": wanted.split(",")} if isinstance(wanted, str) else {})


def _known(given: Mapping[str, Any], names: Sequence[str], where: str) -> None:
    for name in given:
        if name not in names:
            raise RequestError(f"{where} has the unknown field {quoted(name)}; known are {', '.join(names)}")


def _id(value: object, where: str) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str) or not value or len(value) > MAX_ID or not _is_unicode(value):
        raise RequestError(f"id of {where} must be a string of 1 to {MAX_ID} characters")
    return value


def _target(given: Mapping[str, Any], where: str, explains: bool) -> object:
    value = given.get("target", PREDICTED if explains else None)
    if value is PREDICTED or value is None or isinstance(value, str) or type(value) is int:
        return value
    raise RequestError(f"target of {where} is a {type(value).__name__}; give the name or number of a class, or null")


def _method(value: object, where: str) -> str:
    if not isinstance(value, str):
        raise RequestError(f"method of {where} is a {type(value).__name__}; give its name")
    return value


def _top_k(value: object, where: str) -> int | None:
    if value is None:
        return None
    if type(value) is not int or not 1 <= value <= MAX_TOP_K:
        raise RequestError(f"top_k of {where} must be a whole number from 1 to {MAX_TOP_K}")
    return value


def _fields(value: object, where: str) -> frozenset[str]:
    known = get_args(Field)
    if not isinstance(value, list) or any(not isinstance(name, str) or name not in known for name in value):
        raise RequestError(f"return of {where} must be a list of some of {', '.join(known)}")
    return frozenset(value)


def quoted(value: object) -> str:
    """Show a value of the client's in a message: short, and on one line."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _is_unicode(value: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in value)
