"""The playground's worker: prompts in on stdin, answers out on stdout, piece by piece.

    python -m trainer_entry.infer

One `Generate` or `Withdraw` a line comes in; `Token` lines and then one `Generated` or `GenerationFailed` go out for
each `Generate`. Those for one model are answered together, those for another after them. The last model and its
adapters stay loaded. A request that fails is an answer; the worker ends when its stdin does, in the middle of an
answer too, and by SIGALRM where an answer goes on after its deadline.
"""
# mypy: allow-untyped-calls

import os
import sys

from trainer_entry.providers.libraries import import_models
from trainer_entry.runtime.bounds import go_first
from trainer_entry.runtime.imports import importing
from trainer_entry.runtime.secrets import claim_secrets
from trainer_entry.runtime.stdout import LineWriter, claim_stdout


def main() -> int:
    """Answer until stdin ends."""
    lines = LineWriter(claim_stdout())  # before any import that could print
    claim_secrets()
    go_first()
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    from trainer_entry.inference.requests import Requests

    requests = Requests(sys.stdin.buffer)
    with importing():
        from transformers.utils.logging import disable_progress_bar

        from trainer_entry.inference.answering import Answering

        # What the first prompt would import: a worker that is started ahead has the time.
        import_models()

    disable_progress_bar()
    Answering(requests, lines).run()
    return 0


if __name__ == "__main__":
    code = main()
    sys.stderr.flush()
    os._exit(code)  # no library's teardown may hold up the server
