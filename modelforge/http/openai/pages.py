"""Pages of a list, by the id of the last one that was seen."""

from collections.abc import Callable, Iterable
from itertools import islice
from typing import TypeVar

from aiohttp import web

from modelforge.errors import BadInput
from modelforge.http.plumbing.query import int_query, text_query
from modelforge.http.plumbing.route import Query

AFTER_ID = Query("after", str, "Go on after the one with this id.")
_T = TypeVar("_T")


def page_of(
    request: web.Request, found: Iterable[_T], id_of: Callable[[_T], str], default: int
) -> tuple[list[_T], bool]:
    """The page that the query asks for with `after` and `limit`, and whether more follow; no more is looked at.

    Raises:
        BadInput: `after` is the id of none of them.
    """
    after, limit = text_query(request, "after"), int_query(request, "limit", default)
    rest = iter(found)
    if after is not None and all(id_of(one) != after for one in rest):
        raise BadInput("Unknown id in the query", f"after={after[:60]!r}: the id of one in this list.", field="after")
    return [*islice(rest, limit)], next(rest, None) is not None
