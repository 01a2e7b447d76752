"""What is decided about the addresses that hear of ends of jobs."""

from support.scenario import JOB, given, records_of

from modelforge.domain.webhook import (
    MOST,
    CreateWebhook,
    DeleteWebhook,
    ReportDelivery,
    RotateWebhookSecret,
    UpdateWebhook,
    WebhookCreated,
    WebhookDeleted,
    WebhookSecretRotated,
    WebhookServed,
    WebhookUpdated,
)
from modelforge.errors import Conflict, NotFound
from modelforge.projections.read_models import ReadModels

ID = "we_" + "0" * 24
FAILED = "fine_tuning.job.failed"
SUCCEEDED = "fine_tuning.job.succeeded"
WHERE = {"webhook_id": ID, "name": "desk", "url": "http://127.0.0.1:9000/hook"}
CREATE = CreateWebhook(**WHERE, event_types=(FAILED,), secret_hint="…4x0=")  # noqa: S106 - the end of one
CREATED = WebhookCreated(**WHERE, event_types=(FAILED,), secret_hint="…4x0=")  # noqa: S106
RENAME = UpdateWebhook(webhook_id=ID, name="phone")
RENAMED = WebhookUpdated(**{**WHERE, "name": "phone"}, event_types=(FAILED,))
DELETE, DELETED = DeleteWebhook(webhook_id=ID), WebhookDeleted(webhook_id=ID)
WHAT = {"webhook_id": ID, "event_id": "evt_1", "event_type": FAILED, "job_id": JOB, "attempts": 2}


def report(end: int) -> ReportDelivery:
    return ReportDelivery(**WHAT, end=end, status_code=204)


def served(end: int, reason: str | None = None) -> WebhookServed:
    return WebhookServed(**WHAT, end=end, status_code=204 if reason is None else None, reason=reason)


def test_an_endpoint_is_created() -> None:
    given().when(CREATE).then(CREATED)


def test_there_are_not_more_than_may_be() -> None:
    many = [
        WebhookCreated(**{**WHERE, "webhook_id": str(n)}, event_types=(FAILED,), secret_hint="") for n in range(MOST)
    ]
    given(*many).when(CREATE).then_refused(Conflict, str(MOST))
    given(*many, WebhookDeleted(webhook_id="0")).when(CREATE).then(CREATED)


def test_what_is_not_named_stays_as_it_is() -> None:
    given(CREATE, CREATED).when(RENAME).then(RENAMED)
    given(CREATE, CREATED, RENAMED).when(RENAME).then()


def test_a_secret_is_rotated() -> None:
    rotate = RotateWebhookSecret(webhook_id=ID, secret_hint="…9w==")  # noqa: S106
    given(CREATED).when(rotate).then(WebhookSecretRotated(webhook_id=ID, secret_hint="…9w=="))  # noqa: S106


def test_an_endpoint_that_is_gone_is_not_found() -> None:
    given(CREATED).when(DELETE).then(DELETED)
    for command in (RENAME, DELETE, RotateWebhookSecret(webhook_id=ID, secret_hint="")):
        given().when(command).then_refused(NotFound, ID)
        given(CREATED, DELETED).when(command).then_refused(NotFound, ID)


def test_a_delivery_is_recorded_once_and_only_of_an_endpoint_that_is_there() -> None:
    given(CREATED).when(report(7)).then(served(7))
    given(CREATED, served(7)).when(report(7)).then()
    given(CREATED, served(7)).when(report(5)).then()
    given(CREATED, DELETED).when(report(7)).then()
    given().when(report(7)).then()


def test_an_endpoint_is_due_what_ended_since_it_asked_for_that_and_nothing_twice() -> None:
    read_models = ReadModels()
    both = WebhookUpdated(**WHERE, event_types=(FAILED, SUCCEEDED))
    first, second, third, fourth = records_of(CREATED, both, served(5), served(6, "refused"))
    read_models.apply(first)
    known = read_models.webhooks[ID]
    assert [known.is_due(FAILED, end) for end in (1, 2)] == [False, True]
    assert not known.is_due(SUCCEEDED, 2)
    read_models.apply(second)
    known = read_models.webhooks[ID]
    assert [known.is_due(SUCCEEDED, end) for end in (2, 3)] == [False, True]
    assert known.is_due(FAILED, 2), "what was due before the change still is"
    read_models.apply(third)
    assert [read_models.webhooks[ID].is_due(FAILED, end) for end in (5, 6)] == [False, True]
    read_models.apply(fourth)
    known = read_models.webhooks[ID]
    assert known.last_delivery is not None
    assert known.last_undelivered is not None
    assert (known.undelivered, known.last_delivery.status_code, known.last_undelivered.reason) == (1, 204, "refused")
    read_models.apply(records_of(DELETED)[0])
    assert not read_models.webhooks
