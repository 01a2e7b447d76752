"""Everything that speaks against a request, gathered so that all of it can be said at once."""

from types import TracebackType

from modelforge.errors import BadInput, ForgeError, NotFound, Refusal


class Problems:
    """The problems of one request."""

    def __init__(self) -> None:
        self._errors: list[ForgeError] = []
        self._refusals: list[Refusal] = []

    def collecting(self, field: str) -> "_Collecting":
        """Go on after what speaks against a request, and keep it; `field`: the one to blame if the error names none."""
        return _Collecting(self, field)

    def add(self, error: BadInput | NotFound, field: str | None = None) -> None:
        """Keep one more."""
        self._errors.append(error)
        named = error.field if isinstance(error, BadInput) else None
        self._refusals.append(Refusal(field=named or field, message=error.message, remedy=error.detail))

    @property
    def all(self) -> tuple[Refusal, ...]:
        """Every one, in the order in which they were found."""
        return tuple(self._refusals)

    def refuse(self) -> None:
        """Refuse the request if anything speaks against it.

        Raises:
            ForgeError: the first problem, with all of them beside it if there are several.
        """
        if self._errors:
            if len(self._refusals) > 1:
                self._errors[0].refusals = self.all
            raise self._errors[0]


class _Collecting:
    """`with` this a check is made. A class, since a type checker then knows that what follows is reached."""

    def __init__(self, problems: Problems, field: str) -> None:
        self._problems = problems
        self._field = field

    def __enter__(self) -> None:
        """Nothing is to be got ready."""

    def __exit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> bool:
        if not isinstance(error, BadInput | NotFound):
            return False
        self._problems.add(error, self._field)
        return True
