"""Rounds of schemathesis against a server, from its own `openapi.json`, until so many requests were sent."""

from __future__ import annotations

import collections
import re
import time
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import schemathesis
from schemathesis.config import SchemathesisConfig
from schemathesis.core.failures import Failure
from schemathesis.engine import Status, events, from_schema

from modelforge.http.routes import ROUTES

if TYPE_CHECKING:
    from collections.abc import Callable

    from schemathesis import Case, CheckContext, Response
    from schemathesis.engine.recorder import ScenarioRecorder

    from fuzz.contents import Contents

SLOWEST_SECONDS = 60
_TENDED_EVERY = 300
_PROMPTS = ("/api/playground/generate", "/v1/chat/completions", "/v1/completions", "/v1/responses")
"""Each request to these waits for a process that answers, as one to `/api/state` starts one."""
_MALFORMED = re.compile(
    r"Expected |Unknown (field|query)|Invalid |The field |The body |The query's \w+ cannot|Number out of|Integer value"
)
"""How a refusal begins that `openapi.json` should have foretold; what else is refused is so by its meaning."""

ACCEPTED = ["2xx", "304", "400", "401", "404", "409", "416"]
"""To a request within its schema: 400 if its fields do not go together, or name what cannot be used; 401 for a code."""
REFUSED = ["400", "401", "403", "404", "405", "409", "413", "415", "417", "421"]


@schemathesis.check
def form_is_foretold(_context: CheckContext, response: Response, case: Case) -> None:
    """A request that the document allows is not refused for its form."""
    if case.meta is None or not case.meta.generation.mode.is_positive or response.status_code != 400:
        return
    error = response.json()["error"]
    error = error["message"] if isinstance(error, dict) else error
    if _MALFORMED.match(error):
        raise Failure(
            operation=case.operation.label, title="Refused within the schema", message=f"{error}: {response.text[:400]}"
        )


@schemathesis.check
def refusal_is_in_the_shape_of_its_surface(_context: CheckContext, response: Response, case: Case) -> None:
    """Under /v1 a refusal is what OpenAI's clients read, and elsewhere our own; none is a 422 or a 500."""
    if response.status_code < 400 or not response.content:
        return
    error = response.json()["error"]
    expected = {"message", "type", "param", "code"} if case.path.startswith("/v1/") else None
    found = set(error) if isinstance(error, dict) else None
    if found != expected or response.status_code in {422, 500}:
        raise Failure(
            operation=case.operation.label, title="Refusal in the other surface's shape", message=response.text[:400]
        )


@schemathesis.check
def refusal_says_its_status(_context: CheckContext, response: Response, case: Case) -> None:
    """The body of every refusal has its status code, and shows nothing of the server's inside."""
    if response.status_code < 400 or not response.content:
        return
    problem = response.json()
    says = response.status_code if isinstance(problem["error"], dict) else problem["status_code"]
    if says != response.status_code or "Traceback" in response.text:
        raise Failure(operation=case.operation.label, title="Refusal in another shape", message=response.text[:400])


@dataclass(frozen=True)
class Round:
    """How much is sent in one round. `bounds`: every bound of the document too, which are thousands of requests.

    `prompts`: the playground too, whose worker loads a training library, unless its answers are `scripted`: then each
    prompt is answered at once. `under`: only paths that begin so.
    """

    examples: int = 25
    scenarios: int = 60
    bounds: bool = True
    prompts: bool = True
    under: str = "/"
    scripted: bool = False

    @property
    def served(self) -> tuple[str, ...]:
        """How the server is started for it."""
        return ("--scripted-answers",) if self.scripted else ()


def configuration(seed: int, size: Round, shown: dict[str, str]) -> SchemathesisConfig:
    """The checks that are on, and how much is sent in one round; `shown` are headers of each request."""
    return SchemathesisConfig.from_dict(
        {
            "seed": seed,
            "headers": shown,
            "continue-on-failure": True,
            "request-timeout": SLOWEST_SECONDS,
            "warnings": False,
            "cache": {"enabled": False},
            "output": {"sanitization": {"enabled": False}},
            # A name that is not in the document is refused: tests/http/test_what_is_said.py asks for it on every route.
            "generation": {"max-examples": size.examples, "no-shrink": True, "allow-extra-parameters": False},
            "checks": {
                "positive_data_acceptance": {"expected-statuses": ACCEPTED},
                "negative_data_rejection": {"expected-statuses": REFUSED},
                # On loopback none is needed until there is a token, and no route takes a header that it needs.
                "ignored_auth": {"enabled": False},
                "missing_required_header": {"enabled": False},
            },
            "phases": {
                "examples": {"enabled": False},  # the document has none
                "coverage": {"enabled": size.bounds, "generate-duplicate-query-parameters": True},
                "stateful": {"generation": {"max-examples": size.scenarios}},
            },
            "operations": [
                {"include-path": path, "phases": {"fuzzing": {"generation": {"max-examples": 2}}}}
                for path in ("/api/state", *(() if size.scripted else _PROMPTS))
            ]
            + [
                {"include-path": route.path, "enabled": False}
                for route in ROUTES
                if (route.is_endless and not route.is_socket)
                or not route.path.startswith(size.under)
                or (route.path in _PROMPTS and not size.prompts)
            ],
        }
    )


class Campaign:
    """What was sent, what came back, and what should not have."""

    def __init__(
        self, url: str, shown: dict[str, str], contents: Contents, size: Round, tell: Callable[[str], None]
    ) -> None:
        self._url = url
        self._shown = shown
        self._contents = contents
        self._size = size
        self._tell = tell
        self.requests = 0
        self.statuses: collections.Counter[int] = collections.Counter()
        self.slowest = (0.0, "")
        self.reached: collections.Counter[str] = collections.Counter()
        self.findings: dict[tuple[str, str, str], str] = {}
        self.counts: collections.Counter[tuple[str, str, str]] = collections.Counter()

    def run(self, seed: int, requests: int) -> None:
        """Send at least so many requests."""
        schemathesis.hooks.unregister_all()

        @schemathesis.hook
        def before_call(_context: Any, case: Case, _kwargs: dict[str, Any]) -> None:
            self._contents.lead(case)

        @schemathesis.hook
        def filter_failure(_context: Any, failure: Failure, _case: Case, response: Response) -> bool:
            # A part of a JSON file has its type, as RFC 9110 has it, and is no JSON.
            return not (response.status_code == HTTPStatus.PARTIAL_CONTENT and "JSON" in failure.title)

        while self.requests < requests:
            before = self.requests
            self._round(seed, requests)
            self._tell(f"seed {seed}: {self.requests} requests, {len(self.findings)} findings\n")
            seed += 1
            if self.requests == before:
                self.find("round", "nothing was sent", str(seed), "")
                return

    def _round(self, seed: int, requests: int) -> None:
        config = configuration(seed, self._size, self._shown)
        schema = schemathesis.openapi.from_url(f"{self._url}/api/openapi.json", config=config, headers=self._shown)
        stream = from_schema(schema).execute()
        tended = self.requests
        self._contents.tend()
        for event in stream:
            match event:
                case events.ScenarioFinished(recorder=recorder):
                    self._read(recorder)
                case events.Interrupted():
                    raise KeyboardInterrupt
                case events.NonFatalError(label=label, value=error):
                    self.find(type(error).__name__, label, str(error)[:100], str(error))
                case events.FatalError(exception=error):
                    self.find("FatalError", "", str(error)[:100], repr(error))
                case _:
                    pass
            if self.requests - tended > _TENDED_EVERY:
                self._contents.tend()
                tended = self.requests
            if self.requests >= requests:
                stream.stop()

    def _read(self, recorder: ScenarioRecorder) -> None:
        for case_id, interaction in recorder.interactions.items():
            self.requests += 1
            case = recorder.cases[case_id].value
            if interaction.response is None:
                self.find("no answer", case.operation.label, "", interaction.request.uri)
                continue
            status = interaction.response.status_code
            self.statuses[status] += 1
            self.slowest = max(self.slowest, (interaction.response.elapsed, case.operation.label))
            if status < 400:
                self.reached[case.operation.label] += 1
        for case_id, checks in recorder.checks.items():
            for check in checks:
                if check.status == Status.FAILURE and check.failure_info is not None:
                    case = recorder.cases[case_id].value
                    label, meta = case.operation.label, case.meta
                    modes = (
                        {} if meta is None else {place.name: part.mode.name for place, part in meta.components.items()}
                    )
                    shown = f"{modes}\n" + f"{check.failure_info.failure.title}\n{check.failure_info.failure.message}\n"
                    self.find(check.name, label, "", shown + check.failure_info.code_sample)

    def find(self, check: str, label: str, what: str, shown: str) -> None:
        """Note what should not have been; it is shown once, and counted."""
        self.counts[check, label, what] += 1
        if self.counts[check, label, what] == 1:
            self.findings[check, label, what] = f"{time.strftime('%H:%M:%S')} {shown[:2000]}"
            self._tell(f"FOUND {check} {label} {what}\n{self.findings[check, label, what]}")
