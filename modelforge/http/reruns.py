"""Starting a job again as a new one, from its own records."""

from aiohttp import web
from msgspec import Struct

from modelforge.admission.rerun import readmit
from modelforge.domain import job
from modelforge.domain.state import check_key
from modelforge.http.jobs import find_job, job_detail
from modelforge.http.plumbing.body import idempotency_key, json_response, read_body
from modelforge.http.plumbing.identities import actor_of
from modelforge.http.plumbing.keys import ADMISSION, HANDLER
from modelforge.http.plumbing.route import Route
from modelforge.projections.jobs import JobDetails


class RerunBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`queue`: wait where there is no room now."""

    queue: bool = False


async def rerun_job(request: web.Request) -> web.Response:
    """Start a job again as a new one: the same records, model and parameters. The new job is the answer."""
    repeated = find_job(request)
    key = await idempotency_key(request)
    body = await read_body(request, RerunBody) if await request.read() else RerunBody()
    handler = request.app[HANDLER]
    use = check_key(handler.state, key)
    if use is not None:
        return json_response(job_detail(request, use.stream), status=202)
    spec = job.again(handler.state.jobs[request.match_info["job_id"]].spec, repeated.config)
    spec = await readmit(request.app[ADMISSION], spec, repeated.datasets, queue=body.queue)
    outcome = await handler.submit(job.StartTraining(spec=spec, queue=body.queue, key=key), actor=actor_of(request))
    return json_response(job_detail(request, outcome.stream), status=202)


ROUTES = (
    Route(
        method="POST",
        path="/api/jobs/{job_id}/rerun",
        handler=rerun_job,
        body=RerunBody,
        may_be_empty=True,
        answer=JobDetails,
        status=202,
        errors=(400, 404, 409, 507),
    ),
)
