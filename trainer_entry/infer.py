"""The playground's worker: prompts in on stdin, answers out on stdout, piece by piece.

    python -m trainer_entry.infer

One `Generate` a line comes in; `Token` lines and then one `Generated` or `GenerationFailed` go out for each, in
order. The last model and the last adapter stay loaded. A request that fails is an answer; the worker ends when
its stdin does, in the middle of an answer too, and by SIGALRM where an answer goes on after its deadline.
"""
# mypy: allow-untyped-calls

import os
import queue
import sys
import threading
import traceback

import msgspec

from trainer_entry.runtime.bounds import go_first
from trainer_entry.runtime.failures import kind_of, message_of
from trainer_entry.runtime.secrets import claim_secrets
from trainer_entry.runtime.stdout import LineWriter, claim_stdout
from trainer_entry.wire import Generate, GenerationFailed


class _RequestId(msgspec.Struct, frozen=True, gc=False):
    """What can be said of a request that is none."""

    id: int = -1


def main() -> int:
    """Answer until stdin ends."""
    lines = LineWriter(claim_stdout())  # before any import that could print
    claim_secrets()
    go_first()
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    requests: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
    ended = threading.Event()
    threading.Thread(target=_read, args=(requests, ended), name="requests", daemon=True).start()
    from transformers.utils.logging import disable_progress_bar

    from trainer_entry.inference.generation import Models, answer

    disable_progress_bar()
    models = Models()
    while (line := requests.get()) is not None:
        try:
            request = msgspec.json.decode(line, type=Generate)
            lines.write(answer(request, models, lines, ended))
        except Exception as error:  # noqa: BLE001 - a failure is an answer
            traceback.print_exc()
            lines.write(GenerationFailed(id=_id_of(line), kind=kind_of(error), message=message_of(error)))
    return 0


def _read(requests: queue.SimpleQueue[bytes | None], ended: threading.Event) -> None:
    """Read stdin beside the work, so that its end is noticed in the middle of it."""
    for line in sys.stdin.buffer:
        requests.put(line)
    ended.set()
    requests.put(None)


def _id_of(line: bytes) -> int:
    try:
        return msgspec.json.decode(line, type=_RequestId).id
    except msgspec.MsgspecError:
        return -1


if __name__ == "__main__":
    code = main()
    sys.stderr.flush()
    os._exit(code)  # no library's teardown may hold up the server
