"""The problem of an answer, whichever surface was asked."""

import requests


def problem_in(answer: requests.Response) -> dict[str, object]:
    """The problem as /api has it; of one in OpenAI's shape the message is both the error and the detail."""
    body: dict[str, object] = answer.json()
    inside = body.get("error")
    if not isinstance(inside, dict):
        return body
    assert set(inside) == {"message", "type", "param", "code"}
    title = str(inside["message"]).partition(":")[0]
    problem = {"error": title, "detail": inside["message"], "status_code": answer.status_code}
    return problem if inside["param"] is None else {**problem, "field": inside["param"]}
