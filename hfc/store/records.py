"""JSON objects as typed records; a damaged field is named. What runs hold is in hfc.runs, its parts here."""

import functools
import json
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from types import UnionType
from typing import Annotated, Any, Self, cast, get_args, get_origin, get_type_hints

from hfc.errors import RunError
from hfc.metrics import Metrics

REMEDY = "train the run again"

JSON_TYPES = {  # of a field's type: what JSON has for it, in words and in Python
    str: ("a text", str),
    int: ("an integer", int),
    float: ("a number", int | float),
    bool: ("true or false", bool),
    tuple: ("a list", list),
    Mapping: ("an object", dict),
}


@dataclass(frozen=True, kw_only=True)
class Record:
    """A JSON object whose keys are the fields, in their order."""

    others: Mapping[str, object] = field(default_factory=dict)
    """Keys that this version does not know. A newer one wrote them; they stay as they are."""

    @classmethod
    def from_json(cls, content: bytes, where: str, remedy: str = REMEDY) -> Self:
        """The record in a file's bytes; raises as `read`, and where they are no JSON."""
        try:
            value = json.loads(content)
        except ValueError as error:
            raise RunError(f"{where}: expected JSON, found {error!r}; {remedy}") from error
        return cls.read(value, where, remedy)

    @classmethod
    def read(cls, value: object, where: str, remedy: str = REMEDY) -> Self:
        """The record that a JSON value holds.

        Args:
            value: as `json` reads it.
            where: what holds it, for messages.
            remedy: what to do if it is damaged, for messages.

        Raises:
            RunError: a field is missing or has another type; the message names it.
        """
        try:
            return cast(Self, _typed(cls, value, f"{where}: "))
        except ValueError as error:
            raise RunError(f"{error}; {remedy}") from None

    def plain(self) -> dict[str, Any]:
        """The record as `json` writes it, without what it says by its absence."""
        values: dict[str, object] = {}
        record: Any = type(self)
        for key, (name, kind, absent) in _keys(record).items():
            value = getattr(self, name)
            if value != absent:
                values[key] = nested(value) if get_origin(kind) is Annotated else _plain(value)
        return {**values, **self.others}


def _plain(value: object) -> object:
    if isinstance(value, tuple):
        return [_plain(part) for part in value]
    return value.plain() if isinstance(value, Record) else value


@functools.cache
def _kinds(record: type) -> dict[str, Any]:
    """Return the type of every field of a record."""
    return get_type_hints(record, include_extras=True)


@functools.cache
def _keys(record: type) -> dict[str, tuple[str, Any, Any]]:
    """Return the field's name, type and value in files without it, by key.

    That value is MISSING where no file may lack it.
    """
    kinds = _kinds(record)
    return {
        one.metadata.get("key", one.name): (
            one.name,
            kinds[one.name],
            one.default if one.default_factory is MISSING else one.default_factory(),
        )
        for one in fields(record)
        if one.name != "others"
    }


def _typed(kind: Any, value: object, place: str) -> Any:
    """A JSON value as a field holds it. Raises a ValueError that names the place."""
    outer, inner = get_origin(kind), get_args(kind)
    if kind is object or (outer is UnionType and value is None):
        return value
    if outer is UnionType:  # X | None
        return _typed(inner[0], value, place)
    if outer is Annotated:  # Metrics
        value = flat(_typed(Mapping[str, object], value, place))
        return {name: _typed(float, number, _below(place, name.replace("/", ".", 1))) for name, number in value.items()}
    words, fitting = JSON_TYPES.get(outer or kind, JSON_TYPES[Mapping])
    if not isinstance(value, fitting) or (isinstance(value, bool) and kind is not bool):
        shown = "null" if value is None else repr(value)[:80]
        raise ValueError(f"{place.rstrip(': ')}: expected {words}, found {shown}")
    if outer is tuple:
        return tuple(_typed(inner[0], part, f"{place}[{i}]") for i, part in enumerate(cast(list[object], value)))
    if outer is Mapping:
        content = cast(dict[str, object], value)
        return {name: _typed(inner[1], part, _below(place, name)) for name, part in content.items()}
    return _record(kind, cast(dict[str, object], value), place) if words == "an object" else value


def _record(kind: Any, content: dict[str, object], place: str) -> Any:
    keys = _keys(kind)
    values = {}
    for key, (name, kind_of_field, absent) in keys.items():
        if key in content:
            values[name] = _typed(kind_of_field, content[key], _below(place, key))
        elif absent is MISSING:
            raise ValueError(f"{_below(place, key)}: missing")
    others = {key: value for key, value in content.items() if key not in keys}
    values["others"] = _typed(_kinds(kind)["others"], others, place)
    return kind(**values)


def _below(place: str, key: str) -> str:
    return place + key if place.endswith(": ") else f"{place}.{key}"


@dataclass(frozen=True, kw_only=True)
class CacheRecord(Record):
    """Where a run's features and labels came from."""

    path: str
    feature_key: str
    key_fields: Mapping[str, object] | None = None
    """What the feature key is a digest of."""
    features_sha256: str
    rows: int
    dim: int
    """Features of a row."""
    origin: str
    """The data set, in words."""
    backbone: str
    image_size: int | None
    weights: str
    weights_digest: str
    random_weights: bool
    """Whether the backbone was never trained."""
    labels: str | None = None
    """The file that the labels came from."""
    labels_digest: str | None = None
    """Over the ids, labels and splits of all rows, and their groups where they have any."""
    labels_sha256: str | None = None
    """Of the CSV of labels; "" for the cache's own labels."""
    extracted_by: Mapping[str, str]

    @property
    def views(self) -> int:
        """How many views of each row the features are of."""
        views = (self.key_fields or {}).get("views")
        return len(views) if isinstance(views, list) else 1


@dataclass(frozen=True, kw_only=True)
class Calibration(Record):
    """How far the probabilities of a split can be trusted, before calibration and after it."""

    ece_before: float
    nll_before: float
    ece: float
    nll: float


@dataclass(frozen=True, kw_only=True)
class Temperature(Record):
    """The temperature of a run, by which its probabilities are calibrated; see `hfc.train.calibration`."""

    value: float
    """T."""
    validation: Calibration | None = None
    """None where no validation row has a leaf's label; then T is 1."""
    test: Calibration | None = None
    """None where no test row has a leaf's label."""


@dataclass(frozen=True, kw_only=True)
class OuterRecord(Record):
    """The outer fold of a nested cross-validation that a run is of; see `hfc.train.outer.OuterFold`."""

    number: int
    folds: int
    row: str
    search: str
    searched: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Machine(Record):
    """What a run was trained on."""

    device: str
    precision: str
    threads: int
    platform: str


@dataclass(frozen=True, kw_only=True)
class Code(Record):
    """The program that trained a run."""

    version: str
    commit: str
    digest: str


def flat(content: Mapping[str, object]) -> dict[str, object]:
    """Turn metrics of JSON into metrics by key; their types are not checked."""
    numbers: dict[str, object] = {}
    for name, value in content.items():
        inner = {f"{name}/{key}": number for key, number in value.items()} if isinstance(value, dict) else {name: value}
        numbers |= inner
    return numbers


def nested(metrics: Metrics) -> dict[str, Any]:
    """Turn metrics by key into those of JSON."""
    content: dict[str, Any] = {}
    for name, number in metrics.items():
        outer, slash, inner = name.partition("/")
        if slash:
            content.setdefault(outer, {})[inner] = number
        else:
            content[name] = number
    return content
