"""The way in: a Kafka record becomes a typed event, or a :class:`Rejected` that says why not.

CloudEvents 1.0 in structured mode (``content-type: application/cloudevents+json``) and in binary mode (``ce_``
headers). Nothing that a producer may write raises anything but :class:`Rejected`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import lru_cache, partial
from operator import itemgetter
from typing import Any, Final, Literal, NamedTuple, NoReturn

from pydantic import ValidationError
from pydantic_core import from_json

from schemas import base, dead_letters, table

MESSAGE_BYTES_MAX: Final = 1024 * 1024
HEADERS_MAX: Final = 100
HEADER_BYTES_MAX: Final = 64 * 1024  # names and contents of all headers together
NESTING_MAX: Final = 32  # objects and arrays inside each other
ID_LENGTH_MAX: Final = 256  # characters
SOURCE_LENGTH_MAX: Final = 512  # characters
TYPE_LENGTH_MAX: Final = 256  # characters
SUBJECT_LENGTH_MAX: Final = 1024  # characters
TRACEPARENT_LENGTH_MAX: Final = 256  # characters
FUTURE_US_MAX: Final = 5 * 60 * 1_000_000  # how far a producer's clock may be ahead
PATH_LENGTH_MAX: Final = 256  # characters; a path may repeat what the producer wrote

IDENTIFIER_CHARACTERS: Final = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._:-"
ATTRIBUTES: Final = ("specversion", "id", "source", "type", "subject", "time", "tenantid", "sequence", "traceparent")
ATTRIBUTE_OF_HEADER: Final = {f"ce_{name}": name for name in ATTRIBUTES}
USUAL_HEADERS: Final = (("content-type", b"application/cloudevents+json"),)

Mode = Literal["structured", "binary", "unsaid", "unreadable"]


class Inbound(NamedTuple):
    """One event as it was observed somewhere else.

    ``time_us`` is in microseconds since 1970 (UTC); ``sequence`` orders what one source says of one facet.
    """

    id: str
    source: str
    type: str
    subject: str | None
    time_us: int
    tenantid: str
    sequence: int | None
    traceparent: str | None
    data: base.Data


class Rejected(Exception):  # noqa: N818 - a dead letter is an outcome, not an error of this program
    """A message that cannot be handled: the code, the sentence and the context of its dead letter.

    ``tenant_id`` is None where the tenant could not be read.
    """

    def __init__(
        self, code: dead_letters.Code, message: str, context: dict[str, Any] | None = None, tenant_id: str | None = None
    ) -> None:
        super().__init__(message)
        self.code: dead_letters.Code = code
        self.message = message
        self.context: dict[str, Any] = {} if context is None else context
        self.tenant_id = tenant_id


def parse(
    value: bytes | None,
    headers: Sequence[tuple[str, bytes | None]],
    key: bytes | None,
    *,
    now_us: int,
    topic: str | None = None,
) -> Inbound:
    """The event in a Kafka record, or :class:`Rejected`.

    ``now_us`` is the service's clock in microseconds since 1970: what claims to be more than five minutes newer is
    refused. ``topic`` is the topic without its prefix, where the record came from one: a type that does not belong
    there is refused.
    """
    if headers == USUAL_HEADERS:
        usual = _read_usual(value, key, now_us, topic)
        if usual is not None:
            return usual
    content_type, extensions = _read_headers(headers)
    mode = "unsaid" if content_type is None else _mode_of(content_type)
    binary = bool(extensions) and mode != "structured"
    if value is not None and len(value) > MESSAGE_BYTES_MAX:
        raise Rejected(
            "message_too_large",
            f"The message has {len(value)} bytes, more than {MESSAGE_BYTES_MAX}.",
            {"size": len(value), "size_max": MESSAGE_BYTES_MAX},
            _tenant_of(_decode_known(extensions)) if binary else None,
        )
    attributes = _decode_attributes(extensions, mode) if binary else _read_structured(value, mode)
    try:
        return _read_event(attributes, value, key, now_us, topic, binary)
    except Rejected as rejected:
        rejected.tenant_id = _tenant_of(attributes)
        raise


def parse_time(text: str) -> int:
    """Microseconds since 1970 of an RFC 3339 time with a zone; finer fractions are cut off.

    A leap second counts as the second after it. Raises ValueError for anything else and for times before 1970.
    """
    seconds = _whole_seconds(text[:19])
    rest = text[19:]
    scale = _USUAL_FRACTIONS.get(len(rest))
    if scale and rest[0] == "." and rest[-1] == "Z" and text[17] != "6" and seconds >= 0:
        digits = rest[1:-1]
        if digits.isascii() and digits.isdigit():
            return seconds * 1_000_000 + int(digits) * scale  # as below, but for the usual forms alone
    fraction_us = 0
    if rest.startswith("."):
        digits = rest[1:].rstrip("Zz") if rest[-1] in "Zz" else rest[1:-6]
        if not (digits.isascii() and digits.isdigit()):
            raise ValueError("its fraction of a second is not a number")
        fraction_us = int(digits[:6].ljust(6, "0"))
        rest = rest[1 + len(digits) :]
    if rest not in {"Z", "z"}:
        seconds -= _offset_seconds(rest)
    if text[17:19] == "60":
        if seconds % 86_400 != 86_399:
            raise ValueError("a leap second ends a day")
        seconds += 1
    if seconds < 0:
        raise ValueError("it is before 1970")
    return seconds * 1_000_000 + fraction_us


_USUAL_FRACTIONS: Final = {5: 1000, 8: 1}  # length of ".123Z" and ".123456Z" to the microseconds of its last digit


@lru_cache(maxsize=4096)
def _whole_seconds(text: str) -> int:
    """Seconds since 1970 of a time in UTC without its fraction; second 60 is read as 59.

    What arrives together was observed in a few seconds, so that most answers are remembered ones.
    """
    # fromisoformat reads more forms than RFC 3339 has, so the separators are checked before it.
    if (
        len(text) != 19
        or text[4] != "-"
        or text[7] != "-"
        or text[10] not in "Tt"
        or text[13] != ":"
        or text[16] != ":"
    ):
        raise ValueError("it has not the form 2026-01-31T12:00:00Z")
    if text[17:] == "60":
        text = text[:17] + "59"
    return int(datetime.fromisoformat(text + "+00:00").timestamp())


def _offset_seconds(zone: str) -> int:
    hours, minutes = zone[1:3], zone[4:6]
    well_formed = len(zone) == 6 and zone[0] in "+-" and zone[3] == ":" and zone.isascii()
    if not (well_formed and hours.isdigit() and minutes.isdigit() and hours <= "23" and minutes <= "59"):
        raise ValueError("it has no zone")
    seconds = int(hours) * 3600 + int(minutes) * 60
    return -seconds if zone[0] == "-" else seconds


def _read_event(
    attributes: Mapping[str, Any], value: bytes | None, key: bytes | None, now_us: int, topic: str | None, binary: bool
) -> Inbound:
    if attributes.get("specversion") != "1.0":
        _reject_attribute("specversion", 'must be "1.0"')
    event_id = _text(attributes, "id", ID_LENGTH_MAX)
    source = _text(attributes, "source", SOURCE_LENGTH_MAX)
    type_ = _text(attributes, "type", TYPE_LENGTH_MAX)
    subject = attributes.get("subject") or None
    if subject is not None:
        subject = _text(attributes, "subject", SUBJECT_LENGTH_MAX)
    tenant_id = _tenant_id(attributes, key)
    time_us = _time_us(attributes)
    sequence = attributes.get("sequence")
    if sequence is not None:
        sequence = _sequence(sequence, binary)
    event_type = _event_type(type_, topic)
    if time_us > now_us + FUTURE_US_MAX:
        ahead = (time_us - now_us) // 1_000_000
        raise Rejected(
            "time_in_future",
            f"The time {attributes['time']} is {ahead} seconds ahead of the service's clock.",
            {"time": attributes["time"], "ahead_seconds": ahead},
        )
    data = _read_binary_data(value) if binary else attributes.get("data")
    try:
        model = event_type.validate(data)
    except ValidationError as error:
        raise _invalid_data(error) from None
    return Inbound(event_id, source, type_, subject, time_us, tenant_id, sequence, _traceparent(attributes), model)


def _read_usual(value: bytes | None, key: bytes | None, now_us: int, topic: str | None) -> Inbound | None:
    """A structured event in which everything is in order and written as nearly all producers write it, or None.

    It says only yes: whatever it does not take is read again, with every check by itself, to say what is wrong with
    it. What it takes would be read as the same event there. Nearly all messages end here, at half the cost.
    """
    if (
        not value
        or len(value) > MESSAGE_BYTES_MAX
        or value.count(b"{") + value.count(b"[") > NESTING_MAX
        or key is None
        or not _is_identifier(key)
    ):
        return None
    try:
        event = from_json(value, allow_inf_nan=False, cache_strings="keys")
        version, event_id, source, type_, time, tenant_id, data = _required(event)
        event_type = table.INBOUND[type_]
        subject = event.get("subject") or ""
        sequence = event.get("sequence")
        if (
            version != "1.0"
            or tenant_id != key.decode()
            or not (type(event_id) is type(source) is type(time) is type(subject) is str)
            or not (event_id and source and f"{event_id}{source}{subject}".isprintable())
            or len(event_id) > ID_LENGTH_MAX
            or len(source) > SOURCE_LENGTH_MAX
            or len(subject) > SUBJECT_LENGTH_MAX
            or len(time) > TYPE_LENGTH_MAX
            or (sequence is not None and not (type(sequence) is int and 0 <= sequence <= base.QUANTITY_MAX))
            or (topic is not None and topic != event_type.topic)
            or event.get("datacontenttype", "application/json") != "application/json"
        ):
            return None
        time_us = parse_time(time)
        if time_us > now_us + FUTURE_US_MAX:
            return None
        model = event_type.validate(data)
    except (KeyError, TypeError, ValueError):  # a ValidationError is a ValueError
        return None
    return _inbound(
        (event_id, source, type_, subject or None, time_us, tenant_id, sequence, _traceparent(event), model)
    )


_inbound: Callable[[tuple[Any, ...]], Inbound] = partial(tuple.__new__, Inbound)  # half the cost of its constructor
_required = itemgetter("specversion", "id", "source", "type", "time", "tenantid", "data")


# Headers and modes


def _read_headers(headers: Sequence[tuple[str, bytes | None]]) -> tuple[bytes | None, dict[str, bytes]]:
    if len(headers) > HEADERS_MAX:
        raise Rejected(
            "invalid_envelope",
            f"The message has {len(headers)} headers, more than {HEADERS_MAX}.",
            {"headers": len(headers), "headers_max": HEADERS_MAX},
        )
    content_type: bytes | None = None
    extensions: dict[str, bytes] = {}
    size = 0
    for name, content in headers:
        size += len(name)
        if content is None:
            # Kafka knows headers without a content, although its clients' types do not say so.
            continue
        size += len(content)
        if name.startswith("ce_"):
            if name in extensions:
                _reject_attribute(name[3 : 3 + TYPE_LENGTH_MAX], "is given by two headers")
            extensions[name] = content
        elif name.lower() == "content-type":
            if content_type is not None:
                _reject_attribute("datacontenttype", "is given by two headers")
            content_type = content
    if size > HEADER_BYTES_MAX:
        raise Rejected(
            "invalid_envelope",
            f"The headers have {size} bytes, more than {HEADER_BYTES_MAX}.",
            {"header_bytes": size, "header_bytes_max": HEADER_BYTES_MAX},
        )
    return content_type, extensions


@lru_cache(maxsize=256)
def _mode_of(content_type: bytes) -> Mode:
    media_type = content_type.split(b";")[0].strip().lower()
    if media_type == b"application/cloudevents+json":
        return "structured"
    if _is_json(media_type.decode("utf-8", "replace")):
        return "binary"
    return "unreadable"


def _is_json(media_type: str) -> bool:
    if media_type.startswith("application/cloudevents"):
        return False  # a batch, or a format other than JSON
    return media_type in {"application/json", "text/json"} or media_type.endswith("+json")


def _decode_known(extensions: Mapping[str, bytes]) -> dict[str, Any]:
    """The attributes of a binary event as far as they are UTF-8; the others are missing."""
    attributes: dict[str, Any] = {}
    for header, name in ATTRIBUTE_OF_HEADER.items():
        if header in extensions:
            try:
                attributes[name] = extensions[header].decode()
            except UnicodeDecodeError:
                continue
    return attributes


def _decode_attributes(extensions: Mapping[str, bytes], mode: Mode) -> dict[str, Any]:
    if mode == "unreadable":
        raise Rejected(
            "invalid_envelope",
            "The content type is not JSON.",
            {"attribute": "datacontenttype"},
            _tenant_of(_decode_known(extensions)),
        )
    try:
        return {
            name: extensions[header].decode() for header, name in ATTRIBUTE_OF_HEADER.items() if header in extensions
        }
    except UnicodeDecodeError:
        attributes = _decode_known(extensions)
    wrong = next(
        name for header, name in ATTRIBUTE_OF_HEADER.items() if header in extensions and name not in attributes
    )
    raise Rejected(
        "invalid_envelope", f"The attribute {wrong} is not UTF-8.", {"attribute": wrong}, _tenant_of(attributes)
    )


def _read_structured(value: bytes | None, mode: Mode) -> dict[str, Any]:
    """The event as one JSON object. Without a content type it may still say of itself that it is a CloudEvent."""
    if mode not in {"structured", "unsaid"}:
        raise Rejected("invalid_envelope", "The message is no CloudEvent: it has neither its content type nor headers.")
    if not value:
        raise Rejected("invalid_envelope", "The message has no value.")
    try:
        event = from_json(value, allow_inf_nan=False)
    except ValueError as error:
        event = _salvage(value, error)
    if type(event) is not dict:
        raise Rejected("invalid_envelope", "The message is not a JSON object.")
    if _nests_too_deep(event, value):
        raise Rejected(
            "invalid_envelope", f"The message nests deeper than {NESTING_MAX} levels.", {}, _tenant_of(event)
        )
    content_type = event.get("datacontenttype")
    if content_type is not None and content_type != "application/json":
        readable = type(content_type) is str and _is_json(content_type.split(";")[0].strip().lower())
        if not readable:
            raise Rejected(
                "invalid_envelope",
                "The attribute datacontenttype is not JSON.",
                {"attribute": "datacontenttype"},
                _tenant_of(event),
            )
    return event


def _salvage(value: bytes, error: ValueError) -> Any:
    """What can still be read of a message with a number of thousands of digits, without its data.

    It is refused in any case; this only finds out whose it is, and that its envelope can be read.
    """
    if "number out of range" in str(error):
        try:
            event = from_json(re.sub(rb"[0-9]{4000,}", b"0", value), allow_inf_nan=False)
        except ValueError:
            event = None
        if type(event) is dict:
            event["data"] = None
            return event
    raise Rejected("invalid_envelope", f"The message is not JSON: {error}.") from None


def _nests_too_deep(document: Any, value: bytes) -> bool:
    if value.count(b"{") + value.count(b"[") <= NESTING_MAX:
        return False  # counting brackets is far cheaper than walking, and settles nearly every message
    level = [document]
    for _ in range(NESTING_MAX):
        level = [
            child
            for node in level
            for child in (node.values() if type(node) is dict else node)
            if type(child) is dict or type(child) is list
        ]
        if not level:
            return False
    return True


# Attributes


def _reject_attribute(name: str, complaint: str) -> NoReturn:
    raise Rejected("invalid_envelope", f"The attribute {name} {complaint}.", {"attribute": name})


def _text(attributes: Mapping[str, Any], name: str, length_max: int) -> str:
    text = attributes.get(name)
    if type(text) is not str or not text:
        _reject_attribute(name, "is missing" if text is None else "must be a text that is not empty")
    if len(text) > length_max:
        _reject_attribute(name, f"has more than {length_max} characters")
    if not text.isprintable() and _has_control_characters(text):
        _reject_attribute(name, "has control characters")
    return text


def _has_control_characters(text: str) -> bool:
    return any(c < " " or "\x7f" <= c <= "\x9f" for c in text)


def _is_identifier(text: bytes) -> bool:
    # All of these taken away, nothing is left: one call in C instead of a loop or a pattern.
    return 0 < len(text) <= base.IDENTIFIER_LENGTH_MAX and not text.translate(None, IDENTIFIER_CHARACTERS)


def _tenant_of(attributes: Mapping[str, Any]) -> str | None:
    tenant_id = attributes.get("tenantid")
    return tenant_id if type(tenant_id) is str and tenant_id.isascii() and _is_identifier(tenant_id.encode()) else None


def _tenant_id(attributes: Mapping[str, Any], key: bytes | None) -> str:
    tenant_id = _tenant_of(attributes)
    if tenant_id is None:
        _reject_attribute("tenantid", "must be 1 to 64 of A-Z a-z 0-9 . _ : -")
    if key is None:
        raise Rejected("invalid_envelope", "The message has no key; it must be the tenant id.", {"attribute": "key"})
    if key != tenant_id.encode():
        raise Rejected("invalid_envelope", "The key of the message is not its tenant id.", {"attribute": "key"})
    return tenant_id


def _time_us(attributes: Mapping[str, Any]) -> int:
    try:
        return parse_time(_text(attributes, "time", TYPE_LENGTH_MAX))
    except ValueError as error:
        _reject_attribute("time", f"is no RFC 3339 time: {error}")


def _sequence(sequence: Any, binary: bool) -> int:
    if binary and type(sequence) is str and len(sequence) <= 16 and sequence.isascii() and sequence.isdigit():
        sequence = int(sequence)
    if type(sequence) is not int or not 0 <= sequence <= base.QUANTITY_MAX:
        _reject_attribute("sequence", f"must be an integer from 0 to {base.QUANTITY_MAX}")
    return sequence


def _traceparent(attributes: Mapping[str, Any]) -> str | None:
    # A broken trace is no reason to refuse what happened: it is not passed on.
    text = attributes.get("traceparent")
    if type(text) is str and 0 < len(text) <= TRACEPARENT_LENGTH_MAX and text.isascii() and text.isprintable():
        return text
    return None


def _event_type(type_: str, topic: str | None) -> table.EventType:
    event_type = table.INBOUND.get(type_)
    if event_type is None:
        raise Rejected("unknown_type", f"The type {type_} is not known.", {"type": type_})
    if topic is not None and topic != event_type.topic:
        raise Rejected(
            "unknown_type",
            f"The type {type_} belongs on {event_type.topic}, not on {topic}.",
            {"type": type_, "topic": topic, "topic_expected": event_type.topic},
        )
    return event_type


# Data


def _read_binary_data(value: bytes | None) -> Any:
    if not value:
        raise Rejected("invalid_data", "The message has no data.", {"path": ""})
    try:
        data = from_json(value, allow_inf_nan=False)
    except ValueError as error:
        raise Rejected("invalid_data", f"The data are not JSON: {error}.", {"path": ""}) from None
    if type(data) is dict and _nests_too_deep(data, value):
        raise Rejected("invalid_data", f"The data nest deeper than {NESTING_MAX} levels.", {"path": ""})
    return data


def _invalid_data(error: ValidationError) -> Rejected:
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    path = ".".join(str(part) for part in first["loc"])[:PATH_LENGTH_MAX]
    place = f"data.{path}" if path else "data"
    return Rejected("invalid_data", f"{place}: {first['msg']}.", {"path": path})
