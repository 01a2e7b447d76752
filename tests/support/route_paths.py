"""Paths of routes, for tests that walk the table of them."""

from modelforge.http.plumbing.route import Route

_NAMES = {"job_id": "train_999999", "model_id": "999999", "filename": "none.jsonl", "name": "none"}
_NAMES |= {"file_id": f"file-{0:024}", "fine_tuning_job_id": "ftjob-999999", "model": "none", "response_id": "resp_0"}
_NAMES |= {"page_file": "none.js"}
_NAMES |= {"webhook_endpoint_id": f"we_{0:024}"}


def path_of(route: Route) -> str:
    """A path of the route, with names in it that nothing has; a KeyError for a name that has no such word yet."""
    return route.path.format(**_NAMES)
