"""Everything that can stand in the log: the Command and Event unions, Record, and the codec.

Type tags are the storage format. They are written out at each message, never taken from a class name, and a
released message only ever gains fields that have defaults: `tests/golden/records.jsonl` holds one of every
type ever written, and each must decode.
"""

import hashlib
from types import UnionType
from typing import Literal, get_args

import msgspec
from msgspec import Raw, Struct

from modelforge.domain import access_token, dataset, job, model, webhook

Command = job.Command | dataset.Command | model.Command | access_token.Command | webhook.Command
Event = job.Event | dataset.Event | model.Event | access_token.Event | webhook.Event
Report = job.Report | dataset.Report | model.Report | webhook.Report
Message = Command | Event

Kind = Literal["command", "event"]
Actor = str
"""Who had a record written: `supervisor`, `trainer`, `api` (nobody was asked for a token), `api:NAME` by a token."""
API = "api"

GENESIS = "0" * 64
"""The digest before the first record."""


class PlacedMessage(Struct, frozen=True, kw_only=True, gc=False):
    """A command or event, and its place in the log: what it takes to fold it.

    `position` counts all records from 1, `version` those of the stream. `at`: unix microseconds.
    """

    position: int
    stream: str
    version: int
    kind: Kind
    at: int
    message: Message


class Record(PlacedMessage, frozen=True, kw_only=True, gc=False):
    """A command or event as it stands in the log.

    `cause`: position of the record that led to this one. `data`: the message as JSON, as it was written. `digest`: hex
    SHA-256 over the previous record's digest and everything else here (`digest_of`).
    """

    type: str
    cause: int | None
    actor: Actor
    data: Raw
    digest: str


_encoder = msgspec.json.Encoder()
_commands = msgspec.json.Decoder(Command)
_events = msgspec.json.Decoder(Event)


def encode(message: Message) -> bytes:
    """A message as it is stored: one JSON object, its tag first."""
    return _encoder.encode(message)


def decode(kind: Kind, data: bytes | str) -> Message:
    """The message in a stored record.

    Raises:
        msgspec.ValidationError: the data is no message of this kind that this release knows.
    """
    message: Message = (_commands if kind == "command" else _events).decode(data)
    return message


def _by_tag(kind: Kind, union: UnionType) -> dict[str, tuple[Kind, msgspec.json.Decoder[Message]]]:
    return {str(one.__struct_config__.tag): (kind, msgspec.json.Decoder(one)) for one in get_args(union)}


_BY_TAG = _by_tag("command", Command) | _by_tag("event", Event)


def decode_as(tag: str, data: str | bytes) -> tuple[Kind, Message]:
    """The message in a stored record of a type, and which kind that is: quicker than `decode`.

    Raises:
        msgspec.ValidationError: the data is no message of this type, or this release does not know it.
    """
    if tag not in _BY_TAG:
        raise msgspec.ValidationError(f"Unknown type {tag!r}")
    kind, decoder = _BY_TAG[tag]
    return kind, decoder.decode(data)


_TAGS = {one: str(one.__struct_config__.tag) for one in (*get_args(Command), *get_args(Event))}


def tag_of(message: Message) -> str:
    """The stored name of a message's type."""
    return _TAGS[type(message)]


def is_figures_alone(message: Message) -> bool:
    """Whether nothing in it is anybody's text: steps, and none of them has a figure with a name of its own."""
    if not isinstance(message, job.MetricsLogged):
        return False
    for step in message.steps:  # noqa: SIM110 - a generator takes twice as long, and nearly all records are of these
        if step.nonfinite or step.rewards:
            return False
    return True


def digest_of(
    previous: str,
    position: int,
    stream: str,
    version: int,
    kind: Kind,
    tag: str,
    at: int,
    cause: int | None,
    actor: Actor,
    data: bytes,
) -> str:
    """SHA-256 over the previous digest and the record's canonical bytes: a JSON array of its columns.

    This is the second version: in place of `data` stands its SHA-256 in hexadecimal, a string. The chain is checked
    without the data, wherever that lies. Which version a digest has is told by what it fits, and by nothing beside it.
    """
    content = hashlib.sha256(data).hexdigest()
    canonical = _encoder.encode((position, stream, version, kind, tag, at, cause, actor, content))
    return hashlib.sha256(previous.encode() + canonical).hexdigest()


def first_digest_of(
    previous: str,
    position: int,
    stream: str,
    version: int,
    kind: Kind,
    tag: str,
    at: int,
    cause: int | None,
    actor: Actor,
    data: bytes,
) -> str:
    """The first version, of the records of older releases: `data` itself, an object, ends the array."""
    canonical = _encoder.encode((position, stream, version, kind, tag, at, cause, actor, Raw(data)))
    return hashlib.sha256(previous.encode() + canonical).hexdigest()


def stream_of(message: Message) -> str:
    """The stream that a message stands in. `LaunchNext` is of no single job: it stands in `queue`."""
    match message:
        case job.JobEvent(job_id=job_id):  # nearly all
            return job.stream_of(job_id)
        case job.StartTraining(spec=spec):
            return job.stream_of(spec.job_id)
        case job.LaunchNext():
            return "queue"
        case (
            dataset.RegisterDataset(filename=filename)
            | dataset.DatasetUploaded(filename=filename)
            | dataset.DeleteDataset(filename=filename)
            | dataset.DatasetDeleted(filename=filename)
            | dataset.DatasetFilesRemoved(filename=filename)
            | dataset.DatasetFilesKept(filename=filename)
        ):
            return dataset.stream_of(filename)
        case (
            model.DeleteModel(model_id=model_id)
            | model.ModelRegistered(model_id=model_id)
            | model.ModelDeleted(model_id=model_id)
            | model.ModelFilesRemoved(model_id=model_id)
            | model.ModelFilesKept(model_id=model_id)
        ):
            return model.stream_of(model_id)
        case (
            access_token.CreateToken(name=name)
            | access_token.RevokeToken(name=name)
            | access_token.TokenCreated(name=name)
            | access_token.TokenRevoked(name=name)
        ):
            return access_token.stream_of(name)
        case (
            webhook.CreateWebhook(webhook_id=webhook_id)
            | webhook.UpdateWebhook(webhook_id=webhook_id)
            | webhook.RotateWebhookSecret(webhook_id=webhook_id)
            | webhook.DeleteWebhook(webhook_id=webhook_id)
            | webhook.WebhookCreated(webhook_id=webhook_id)
            | webhook.WebhookUpdated(webhook_id=webhook_id)
            | webhook.WebhookSecretRotated(webhook_id=webhook_id)
            | webhook.WebhookDeleted(webhook_id=webhook_id)
            | webhook.WebhookServed(webhook_id=webhook_id)
        ):
            return webhook.stream_of(webhook_id)
        case _:
            return job.stream_of(message.job_id)
