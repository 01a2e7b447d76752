"""The read models: everything that the API answers from, folded from the records."""

from collections.abc import Iterable, Iterator, MutableMapping
from copy import copy
from typing import TypeVar

import msgspec
from msgspec import Struct

from modelforge.domain import access_token, dataset, job, model, webhook
from modelforge.domain.messages import PlacedMessage
from modelforge.domain.references import references_of
from modelforge.projections import datasets, jobs, models, tokens, webhooks
from modelforge.projections.dataset_references import with_deletion
from modelforge.projections.datasets import DatasetSummary
from modelforge.projections.jobs import JobDetails, TrainingStatus, status_of
from modelforge.projections.listed import ListedJob, ListedModel, listed_job, listed_model
from modelforge.projections.models import ModelDetails
from modelforge.projections.queue import QueueState
from modelforge.projections.tokens import KnownToken
from modelforge.projections.webhooks import KnownWebhook
from trainer_entry import wire

_Details = TypeVar("_Details", JobDetails, ModelDetails)


class ReadModels(Struct, kw_only=True):
    """Everything that the API answers from, as of a record.

    `listed_jobs`, `listed_models`: what lists choose them by.
    `deleted`: when the files of deleted datasets went, by their names; those that were uploaded again are back.
    """

    position: int = 0
    at: int = 0
    jobs: MutableMapping[str, JobDetails] = {}
    models: MutableMapping[int, ModelDetails] = {}
    listed_jobs: MutableMapping[str, ListedJob] = {}
    listed_models: MutableMapping[int, ListedModel] = {}
    datasets: MutableMapping[str, DatasetSummary] = {}
    queue: QueueState = QueueState()
    deleted: MutableMapping[str, str] = {}
    tokens: MutableMapping[str, KnownToken] = {}
    webhooks: MutableMapping[str, KnownWebhook] = {}

    def status(self) -> TrainingStatus:
        """The current training status: of a job that waits on a cluster only where none has started."""
        begun = (job_id for job_id in self.queue.running if self.listed_jobs[job_id].status != "queued")
        current = next(begun, self.queue.current())
        return status_of(None if current is None else self.jobs[current])

    def job_detail(self, details: JobDetails) -> JobDetails:
        """A job with what others' records change: its place in the queue, and whether its dataset is there."""
        if details.job_id in self.queue.waiting:
            place = self.queue.waiting.index(details.job_id) + 1
            details = msgspec.structs.replace(details, queue_position=place)
        return self._with_deletions(details)

    def model(self, model_id: int) -> ModelDetails | None:
        """A model with whether the datasets of its training and its evaluations are there."""
        details = self.models.get(model_id)
        if details is None:
            return None
        evaluations = (
            msgspec.structs.replace(one, dataset=with_deletion(one.dataset, self.deleted))
            for one in details.evaluations
        )
        return self._with_deletions(msgspec.structs.replace(details, evaluations=tuple(evaluations)))

    def _with_deletions(self, details: _Details) -> _Details:
        """A job or model with when its datasets were deleted."""
        if not self.deleted:
            return details
        validation = details.validation_dataset
        return msgspec.structs.replace(
            details,
            dataset=with_deletion(details.dataset, self.deleted),
            validation_dataset=None if validation is None else with_deletion(validation, self.deleted),
        )

    def apply(self, record: PlacedMessage) -> None:
        """Fold one record in."""
        self.position, self.at = record.position, record.at
        if record.kind == "command":
            return
        match record.message:
            case job.JobEvent() as event:  # nearly all
                self._apply_to_job(event, record)
            case dataset.DatasetUploaded() as event:
                self.datasets[event.filename] = datasets.summary_of(event, record.at)
                self._are_back(references_of(event))
            case dataset.DatasetDeleted(filename=filename, files=files):
                del self.datasets[filename]
                self.deleted.update(dict.fromkeys(files, jobs.iso(record.at)))
            case model.ModelRegistered() as event:
                made = models.details_of(event, record.at)
                self.models[event.model_id], self.listed_models[event.model_id] = made, listed_model(made)
                trained = self.jobs[event.spec.job_id]
                self.jobs[event.spec.job_id] = msgspec.structs.replace(trained, model_id=event.model_id)
            case model.ModelDeleted(model_id=model_id):
                del self.models[model_id], self.listed_models[model_id]
            case access_token.TokenCreated() as event:
                self.tokens[event.name] = tokens.known_token(event, record.at)
            case access_token.TokenRevoked(name=name):
                del self.tokens[name]
            case (
                webhook.WebhookCreated()
                | webhook.WebhookUpdated()
                | webhook.WebhookSecretRotated()
                | webhook.WebhookDeleted()
                | webhook.WebhookServed()
            ) as event:
                changed = webhooks.evolve(self.webhooks.pop(event.webhook_id, None), event, record.position, record.at)
                if changed is not None:
                    self.webhooks[event.webhook_id] = changed
            case _:
                pass

    def _add_evaluation(self, details: JobDetails, found: wire.Judged, at: int) -> None:
        """Put the figures of an evaluation beside the others of its model, unless that was deleted."""
        judged = self.models.get(details.source_model_id or 0)
        if judged is None or details.job_id is None or details.validation_dataset is None:
            return
        evaluation = models.ModelEvaluation(
            job_id=details.job_id,
            dataset=details.validation_dataset,
            metrics=found.metrics,
            at=jobs.iso(at),
            records=found.records,
            base_model=found.base_model,
        )
        self.models[judged.id] = msgspec.structs.replace(judged, evaluations=(*judged.evaluations, evaluation))

    def _are_back(self, files: tuple[str, ...]) -> None:
        for file in files:
            self.deleted.pop(file, None)

    def _apply_to_job(self, event: job.Event, record: PlacedMessage) -> None:
        if isinstance(event, job.TrainingRequested):
            self._are_back(references_of(event))
        changed = jobs.evolve(self.jobs.get(event.job_id), event, record.position, record.at)
        self.jobs[event.job_id] = changed
        if isinstance(event, job.MetricsLogged):
            return  # steps change neither whose turn it is nor what lists choose by
        self.listed_jobs[event.job_id] = listed_job(changed)
        if isinstance(event, job.TrainingCompleted) and isinstance(event.delivery, wire.Judged):
            self._add_evaluation(changed, event.delivery, record.at)
        self.queue = self.queue.after(event, changed.status)


class StateAt(Struct, frozen=True, kw_only=True):
    """The read models as they stood after the record at `position`."""

    position: int
    status: TrainingStatus
    models: list[ModelDetails]
    datasets: list[DatasetSummary]


def models_of(read_models: ReadModels) -> Iterator[ModelDetails]:
    """The models as they stand now, whatever comes; each is made once it is its turn."""
    now = msgspec.structs.replace(read_models, models=copy(read_models.models), deleted=copy(read_models.deleted))
    return (model for model_id in now.models if (model := now.model(model_id)) is not None)


def state_of(read_models: ReadModels, models: Iterable[ModelDetails]) -> StateAt:
    """The read models as the API shows them, with such models."""
    return StateAt(
        position=read_models.position,
        status=read_models.status(),
        models=[*models],
        datasets=[*read_models.datasets.values()],
    )
