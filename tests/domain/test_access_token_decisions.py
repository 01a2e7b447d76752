"""What is decided about the tokens of clients."""

from support.scenario import given, records_of

from modelforge.domain.access_token import CreateToken, RevokeToken, TokenCreated, TokenRevoked
from modelforge.errors import Conflict, NotFound
from modelforge.projections.read_models import ReadModels

CREATE = CreateToken(name="laptop", scope="write", sha256="5f" * 32, expires_at=1_800_000_000_000_000)
CREATED = TokenCreated(name="laptop", scope="write", sha256="5f" * 32, expires_at=1_800_000_000_000_000)
REVOKE, REVOKED = RevokeToken(name="laptop"), TokenRevoked(name="laptop")


def test_a_token_is_created() -> None:
    given().when(CREATE).then(CREATED)


def test_a_name_that_is_taken_is_refused() -> None:
    given(CREATE, CREATED).when(CREATE).then_refused(Conflict, "laptop")


def test_a_token_is_revoked() -> None:
    given(CREATE, CREATED).when(REVOKE).then(REVOKED)


def test_a_token_that_is_not_there_is_not_revoked() -> None:
    given().when(REVOKE).then_refused(NotFound, "laptop")
    given(CREATE, CREATED, REVOKE, REVOKED).when(REVOKE).then_refused(NotFound, "laptop")


def test_the_name_of_a_revoked_token_is_free() -> None:
    given(CREATE, CREATED, REVOKE, REVOKED).when(CREATE).then(CREATED)


def test_the_list_has_what_is_not_revoked() -> None:
    read_models = ReadModels()
    for record in records_of(CREATE, CREATED, REVOKE, REVOKED, CREATE, CREATED):
        read_models.apply(record)
    (token,) = read_models.tokens.values()
    assert (token.details.name, token.details.scope, token.details.expires_at) == (
        "laptop",
        "write",
        "2027-01-15T08:00:00Z",
    )
    read_models.apply(records_of(REVOKED)[0])
    assert not read_models.tokens
