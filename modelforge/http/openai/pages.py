"""Pages of a list, by the id of the last one that was seen."""

from collections.abc import Callable, Sequence
from typing import TypeVar

from aiohttp import web

from modelforge.errors import BadInput
from modelforge.http.plumbing.query import int_query, text_query
from modelforge.http.plumbing.route import Query

AFTER_ID = Query("after", str, "Go on after the one with this id.")
_T = TypeVar("_T")


def page_of(
    request: web.Request, found: Sequence[_T], id_of: Callable[[_T], str], default: int
) -> tuple[list[_T], bool]:
    """The page that the query asks for with `after` and `limit`, and whether more follow.

    Raises:
        BadInput: `after` is the id of none of them.
    """
    after, limit = text_query(request, "after"), int_query(request, "limit", default)
    begin = 0
    if after is not None:
        begin = next((place for place, one in enumerate(found, 1) if id_of(one) == after), 0)
        if not begin:
            raise BadInput(
                "Unknown id in the query", f"after={after[:60]!r}: the id of one in this list.", field="after"
            )
    return list(found[begin : begin + limit]), begin + limit < len(found)
