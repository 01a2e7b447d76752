"""What all decisions are made against: every job, dataset and model as the log has them."""

from collections.abc import Iterator, MutableMapping
from typing import Any, TypeVar, assert_never

import msgspec
from msgspec import Struct

from modelforge.domain import access_token, dataset, job, model, references, webhook
from modelforge.domain.idempotency import IdempotencyKey
from modelforge.domain.messages import Command, Event, PlacedMessage
from modelforge.domain.scheduling import queue_after
from modelforge.errors import Conflict, Unauthorized

_K = TypeVar("_K")
_V = TypeVar("_V")


class _Layer(MutableMapping[_K, _V]):
    """A mapping, and what is changed above it; a ChainMap's own looks take many times as long."""

    __slots__ = ("below", "changed")

    def __init__(self, below: MutableMapping[_K, _V]) -> None:
        self.below = below
        self.changed: dict[_K, _V] = {}

    def __getitem__(self, key: _K) -> _V:
        return self.changed[key] if key in self.changed else self.below[key]

    def get(self, key: _K, default: Any = None) -> Any:
        """As of any mapping."""
        return self.changed[key] if key in self.changed else self.below.get(key, default)

    def __contains__(self, key: object) -> bool:
        return key in self.changed or key in self.below

    def __setitem__(self, key: _K, value: _V) -> None:
        self.changed[key] = value

    def __delitem__(self, key: _K) -> None:
        raise TypeError(f"{key!r} cannot be taken out: nothing that stood in the log ever goes")

    def __iter__(self) -> Iterator[_K]:
        yield from self.below
        yield from (key for key in self.changed if key not in self.below)

    def __len__(self) -> int:
        return len(self.below) + sum(key not in self.below for key in self.changed)


class KeyUse(Struct, frozen=True, kw_only=True, gc=False):
    """The command that a key stands for: where it is recorded, and what was asked."""

    request_sha256: str
    position: int
    stream: str


class State(Struct, kw_only=True):
    """`running`: the jobs on the machine, in the order in which they started. `waiting`: the queue, oldest first.

    `versions`: the streams' lengths. `references`: how often each file in the folder of datasets is referred to, by
    its name. `deleted_models`: the models that are gone, by their folders.
    """

    position: int = 0
    keys: MutableMapping[str, KeyUse] = {}
    versions: MutableMapping[str, int] = {}
    references: MutableMapping[str, int] = {}
    running: tuple[str, ...] = ()
    waiting: tuple[str, ...] = ()
    jobs: MutableMapping[str, job.Job] = {}
    datasets: MutableMapping[str, dataset.Dataset] = {}
    models: MutableMapping[int, model.Model] = {}
    deleted_models: MutableMapping[str, int] = {}
    tokens: MutableMapping[str, access_token.AccessToken] = {}
    webhooks: MutableMapping[str, webhook.Webhook] = {}

    def apply(self, event: Event) -> None:
        """Change what the event is about, in place. A new aggregate has its mapping above, and its branch here."""
        match event:
            case job.MetricsLogged(job_id=job_id):  # nearly all, and nobody's turn comes by it
                self.jobs[job_id] = job.evolve(self.jobs.get(job_id), event)
            case job.JobEvent(job_id=job_id):
                after = job.evolve(self.jobs.get(job_id), event)
                self.jobs[job_id] = after
                self.running, self.waiting = queue_after(event, after.status, self.running, self.waiting)
                if isinstance(event, job.TrainingRequested):
                    references.add(self.references, event)
            case (
                dataset.DatasetUploaded()
                | dataset.DatasetDeleted()
                | dataset.DatasetFilesRemoved()
                | dataset.DatasetFilesKept()
            ):
                before = self.datasets.get(event.filename)
                self.datasets[event.filename] = dataset.evolve(before, event)
                if isinstance(event, dataset.DatasetUploaded):
                    references.add(self.references, event)
                elif isinstance(event, dataset.DatasetDeleted) and before is not None:
                    references.remove(self.references, before)
            case model.ModelRegistered() | model.ModelDeleted() | model.ModelFilesRemoved() | model.ModelFilesKept():
                self.models[event.model_id] = model.evolve(self.models.get(event.model_id), event)
                if isinstance(event, model.ModelDeleted):
                    self.deleted_models[event.path] = event.model_id
            case access_token.TokenCreated() | access_token.TokenRevoked():
                self.tokens[event.name] = access_token.evolve(self.tokens.get(event.name), event)
            case (
                webhook.WebhookCreated()
                | webhook.WebhookUpdated()
                | webhook.WebhookSecretRotated()
                | webhook.WebhookDeleted()
                | webhook.WebhookServed()
            ):
                self.webhooks[event.webhook_id] = webhook.evolve(self.webhooks.get(event.webhook_id), event)
            case _:
                assert_never(event)

    def known_files(self) -> set[str]:
        """The names of the files in the folder of datasets that are referred to, or that are being removed."""
        referred = {file for file, times in self.references.items() if times}
        return referred.union(*(known.removing for known in self.datasets.values()))

    def draft(self) -> "State":
        """A state that starts as this one, which may be a draft itself, and changes without changing it."""
        fields = {name: getattr(self, name) for name in self.__struct_fields__}
        layers = {name: _Layer(value) for name, value in fields.items() if isinstance(value, MutableMapping)}
        return msgspec.structs.replace(self, **layers)

    def adopt(self, draft: "State", ahead: "State") -> None:
        """Become what a draft of this state became. `ahead` is a draft of that draft, and then one of this state."""
        for name in self.__struct_fields__:
            value = getattr(draft, name)
            if isinstance(value, _Layer):
                below = getattr(self, name)
                below.update(value.changed)
                getattr(ahead, name).below = below
            else:
                setattr(self, name, value)


def evolve(state: State, record: PlacedMessage) -> None:
    """Take one record into the state, in place."""
    state.position = record.position
    state.versions[record.stream] = record.version
    message = record.message
    if isinstance(message, job.JobEvent) or not isinstance(message, Command):  # the first is quicker to tell
        state.apply(message)
    elif message.key is not None:
        state.keys[message.key.value] = KeyUse(
            request_sha256=message.key.request_sha256, position=record.position, stream=record.stream
        )


def check_actor(state: State, actor: str) -> None:
    """Refuse what a token asks that is revoked by now.

    Raises:
        Unauthorized: it is.
    """
    token = state.tokens.get(actor.partition(":")[2])
    if token is not None and token.revoked:
        raise Unauthorized("The token was revoked", "Nothing was done; ask for another token.")


def check_key(state: State, key: IdempotencyKey | None) -> KeyUse | None:
    """The earlier use of a key, if it was used.

    Raises:
        Conflict: it was used for another request.
    """
    use = state.keys.get(key.value) if key is not None else None
    if key is not None and use is not None and use.request_sha256 != key.request_sha256:
        raise Conflict(
            "This Idempotency-Key was used for another request",
            f"It stands for the request recorded at position {use.position}; send this one with a new key.",
        )
    return use
