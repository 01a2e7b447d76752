"""The client whose methods return when they are done: those of the other, run on an event loop in a thread."""

import asyncio
import copy
import functools
import inspect
import threading
import weakref
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Iterator
from concurrent.futures import Future, wait
from types import GenericAlias, TracebackType
from typing import Any, Concatenate, Generic, ParamSpec, Self, TypeVar, get_args

from modelforge.client.asynchronous import AsyncClient

_Given = ParamSpec("_Given")
_T = TypeVar("_T")


class _Loop:
    """An event loop in a thread of its own, so that a client works where another loop runs already: in a notebook."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._has_ended = False
        self._order = threading.RLock()  # held again by an iterator that is collected as garbage meanwhile
        self._thread = threading.Thread(target=self._live, name="modelforge-client", daemon=True)
        self._thread.start()

    def _live(self) -> None:
        self._loop.run_forever()
        self._loop.close()

    def run(self, work: Coroutine[Any, Any, _T]) -> _T:
        """What it comes to. Who is interrupted meanwhile has it cancelled, and waits for its end.

        Raises:
            RuntimeError: the loop has ended.
        """
        begun = self._begin(work)
        if begun is None:
            raise RuntimeError("The client is closed: make another.")
        return self._wait_for(begun)

    def finish(self, work: Coroutine[Any, Any, None]) -> None:
        """The same for the last work of an iterator, which may be collected as garbage in the loop's own thread."""
        begun = self._begin(work)
        if begun is not None and threading.current_thread() is not self._thread:
            self._wait_for(begun)

    def _begin(self, work: Coroutine[Any, Any, _T]) -> "_Begun[_T] | None":
        """Have the loop begin it, unless the last has begun: what came after that would never be done."""
        with self._order:
            if self._has_ended:
                work.close()
                return None
            begun = _Begun(self._loop, work)
            self._loop.call_soon_threadsafe(begun.begin)
        return begun

    def _wait_for(self, begun: "_Begun[_T]") -> _T:
        try:
            return begun.outcome.result()
        except BaseException:
            if not begun.outcome.done():
                self._loop.call_soon_threadsafe(begun.cancel)
                wait([begun.outcome])
            raise

    def end(self, last: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Cancel what is under way, run the last of all, and end the thread."""

        async def finish() -> None:
            others = asyncio.all_tasks() - {asyncio.current_task()}
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)
            await self._loop.shutdown_asyncgens()
            await last()
            self._loop.stop()

        with self._order:
            self._has_ended = True
            asyncio.run_coroutine_threadsafe(finish(), self._loop)
        if threading.current_thread() is not self._thread:  # it may be the one that collects the garbage
            self._thread.join()


class _Begun(Generic[_T]):
    """Work on a loop, and what it comes to."""

    def __init__(self, loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, _T]) -> None:
        self.outcome: Future[_T] = Future()
        self._loop = loop
        self._work = work
        self._task: asyncio.Task[_T] | None = None

    def begin(self) -> None:
        """In the loop's thread."""
        self._task = self._loop.create_task(self._work)
        self._task.add_done_callback(self._tell)

    def cancel(self) -> None:
        """In the loop's thread, after that."""
        if self._task is not None:
            self._task.cancel()

    def _tell(self, task: asyncio.Task[_T]) -> None:
        if task.cancelled():
            self.outcome.cancel()
        elif (error := task.exception()) is not None:
            self.outcome.set_exception(error)
        else:
            self.outcome.set_result(task.result())


def _blocking(
    method: Callable[Concatenate[AsyncClient, _Given], Awaitable[_T]],
) -> Callable[Concatenate["Client", _Given], _T]:
    """The same method, which returns what the other is awaited for."""

    @functools.wraps(method)
    def call(self: "Client", /, *args: _Given.args, **kwargs: _Given.kwargs) -> _T:
        async def work() -> _T:
            return await method(self._client, *args, **kwargs)

        return self._loop_of_work().run(work())

    call.__signature__ = inspect.signature(method)  # type: ignore[attr-defined]
    return call


def _iterating(
    method: Callable[Concatenate[AsyncClient, _Given], AsyncGenerator[_T, None]],
) -> Callable[Concatenate["Client", _Given], Iterator[_T]]:
    """The same method, whose messages are iterated over."""

    @functools.wraps(method)
    def call(self: "Client", /, *args: _Given.args, **kwargs: _Given.kwargs) -> Iterator[_T]:
        loop, messages = self._loop_of_work(), method(self._client, *args, **kwargs)

        async def next_message() -> tuple[_T, ...]:
            async for message in messages:
                return (message,)
            return ()

        try:
            while found := loop.run(next_message()):
                yield found[0]
        finally:
            loop.finish(_closed(messages))

    signature = inspect.signature(method)
    message = get_args(signature.return_annotation)[0]
    call.__signature__ = signature.replace(return_annotation=GenericAlias(Iterator, (message,)))  # type: ignore[attr-defined]
    return call


async def _closed(messages: AsyncGenerator[Any, None]) -> None:
    await messages.aclose()


class Client:
    """A client of the server at `url`: http://127.0.0.1:8000, or `$MODELFORGE_URL`, or `unix:PATH`.

    `token`: by default `$MODELFORGE_API_TOKEN`. `certificate_sha256`: the one certificate that the server may show.
    It has the methods of `AsyncClient`, and may be used by several threads at once.
    """

    def __init__(
        self, url: str | None = None, *, token: str | None = None, certificate_sha256: str | None = None
    ) -> None:
        self._client = AsyncClient(url, token=token, certificate_sha256=certificate_sha256)
        self._loop = _Loop()
        self._keyless: Client | None = None
        self._end = weakref.finalize(self, self._loop.end, self._client.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the connections, and the thread; who forgets it has it done in time."""
        self._end()

    @property
    def is_closed(self) -> bool:
        """Whether it is of no use any more."""
        return not self._end.alive

    def with_idempotency_key(self, key: str) -> Self:
        """The same client, which sends a key: what is asked twice with it is done once, and answered again.

        A key stands for one request. The connections are those of this client, and end with it.
        """
        keyed = copy.copy(self)
        keyed._client = self._client.with_idempotency_key(key)  # noqa: SLF001 - it is one of us
        keyed._keyless = self  # noqa: SLF001 - whose end is the end of both
        return keyed

    def _loop_of_work(self) -> _Loop:
        if self.is_closed:
            raise RuntimeError("The client is closed: make another.")
        return self._loop

    start_training = _blocking(AsyncClient.start_training)
    preflight = _blocking(AsyncClient.preflight)
    get_training_status = _blocking(AsyncClient.get_training_status)
    stop_training = _blocking(AsyncClient.stop_training)
    list_jobs = _blocking(AsyncClient.list_jobs)
    get_job = _blocking(AsyncClient.get_job)
    stop_job = _blocking(AsyncClient.stop_job)
    cancel_job = _blocking(AsyncClient.cancel_job)
    save_checkpoint = _blocking(AsyncClient.save_checkpoint)
    resume_job = _blocking(AsyncClient.resume_job)
    rerun_job = _blocking(AsyncClient.rerun_job)
    get_checkpoints = _blocking(AsyncClient.get_checkpoints)
    get_metrics = _blocking(AsyncClient.get_metrics)
    get_logs = _blocking(AsyncClient.get_logs)
    follow_job = _iterating(AsyncClient.follow_job)
    upload_dataset = _blocking(AsyncClient.upload_dataset)
    list_datasets = _blocking(AsyncClient.list_datasets)
    get_dataset = _blocking(AsyncClient.get_dataset)
    delete_dataset = _blocking(AsyncClient.delete_dataset)
    download_dataset = _blocking(AsyncClient.download_dataset)
    preview_dataset = _blocking(AsyncClient.preview_dataset)
    measure_dataset = _blocking(AsyncClient.measure_dataset)
    list_models = _blocking(AsyncClient.list_models)
    get_model = _blocking(AsyncClient.get_model)
    delete_model = _blocking(AsyncClient.delete_model)
    merge_model = _blocking(AsyncClient.merge_model)
    export_model = _blocking(AsyncClient.export_model)
    push_model = _blocking(AsyncClient.push_model)
    evaluate_model = _blocking(AsyncClient.evaluate_model)
    generate = _blocking(AsyncClient.generate)
    stream_answer = _iterating(AsyncClient.stream_answer)
    get_info = _blocking(AsyncClient.get_info)
    get_health = _blocking(AsyncClient.get_health)
    get_state = _blocking(AsyncClient.get_state)
    list_events = _blocking(AsyncClient.list_events)
    stream_events = _iterating(AsyncClient.stream_events)
    verify_log = _blocking(AsyncClient.verify_log)
    get_machine = _blocking(AsyncClient.get_machine)
    examine_machine = _blocking(AsyncClient.examine_machine)
    get_session = _blocking(AsyncClient.get_session)
    list_tokens = _blocking(AsyncClient.list_tokens)
    create_token = _blocking(AsyncClient.create_token)
    revoke_token = _blocking(AsyncClient.revoke_token)
    make_login_link = _blocking(AsyncClient.make_login_link)
