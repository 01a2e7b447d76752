"""What the server says to the worker, read beside the work, so that it is heard in the middle of an answer."""

import queue
import sys
import threading
import traceback
from collections.abc import Iterable

import msgspec

from trainer_entry.runtime.failures import kind_of, message_of
from trainer_entry.wire import AnyWorkerRequest, GenerationFailed

_decoder: msgspec.json.Decoder[AnyWorkerRequest] = msgspec.json.Decoder(AnyWorkerRequest)


class _RequestId(msgspec.Struct, frozen=True, gc=False):
    """What can be said of a request that is none."""

    id: int = -1


class Requests:
    """The lines of a stream; `ended` once it has."""

    def __init__(self, stream: Iterable[bytes]) -> None:
        self.ended = False
        self._lines: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        threading.Thread(target=self._read, args=(stream,), name="requests", daemon=True).start()

    def take(self, *, wait: bool) -> list[AnyWorkerRequest | GenerationFailed]:
        """All that came since; `wait`: at least one, or the end. What is no request is a failure to send back."""
        found: list[AnyWorkerRequest | GenerationFailed] = []
        while not self.ended:
            try:
                line = self._lines.get(block=wait and not found)
            except queue.Empty:
                break
            if line is None:
                self.ended = True
            else:
                found.append(_decode(line))
        return found

    def _read(self, stream: Iterable[bytes]) -> None:
        for line in stream:
            self._lines.put(line)
        self._lines.put(None)


def _decode(line: bytes) -> AnyWorkerRequest | GenerationFailed:
    try:
        return _decoder.decode(line)
    except msgspec.MsgspecError as error:
        traceback.print_exc(file=sys.stderr)
        return GenerationFailed(id=_id_of(line), kind=kind_of(error), message=message_of(error))


def _id_of(line: bytes) -> int:
    try:
        return msgspec.json.decode(line, type=_RequestId).id
    except msgspec.MsgspecError:
        return -1
