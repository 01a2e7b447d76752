"""Sends a server what its `openapi.json` allows and what it does not, and checks each answer against it.

    python -m fuzz --requests 100000 --seed 1

The server is real, its trainers are scripted. Afterwards it still has to train, and to have logged no error. The exit
code is 1 if anything was found.
"""

import argparse
import contextlib
import random
import signal
import sys
import tempfile
from pathlib import Path

from support.attempt_files import kill_trainers
from support.running_server import RunningServer, environment
from support.tiny_model import build_tiny_model

from fuzz.campaign import Campaign, Round
from fuzz.contents import Contents

_SETTINGS = {"MODELFORGE_PLAYGROUND_DEADLINE_SECONDS": "2", "MODELFORGE_MAX_REQUESTS_PER_MINUTE": "10000000"}


def resident_mebibytes(pid: int) -> int:
    """What a process holds of the memory."""
    (line,) = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS")]
    return int(line.split()[1]) >> 10


def fuzz(folder: Path, model: Path, seed: int, requests: int, size: Round) -> Campaign:
    """What was found on a server of its own."""
    data_dir = folder / "data"
    command = [sys.executable, "-m", "support.served", str(data_dir), *size.served]
    server = RunningServer(command, environment(**_SETTINGS))
    server.shown = server.as_owner()  # tokens come and go, and from the first one on each request needs one

    def tell(text: str) -> None:
        sys.stdout.write(f"{text.strip()}, server {resident_mebibytes(server.process.pid)} MiB\n")
        sys.stdout.flush()

    contents = Contents(server, model, random.Random(seed))  # noqa: S311 - no secret
    campaign = Campaign(server.url, server.shown, contents, size, tell)
    try:
        with contextlib.suppress(KeyboardInterrupt):  # what was found until then is told
            campaign.run(seed, requests)
        contents.tend()
        if (ended := contents.train("completes")) != "completed":
            campaign.find("training", "", ended, f"the job after it all {ended}")
    finally:
        words = server.end()
        kill_trainers(data_dir)
    lines = words.splitlines()
    for number, line in enumerate(lines):
        if '"level":"error"' in line or line.startswith("Traceback"):
            campaign.find("server log", "", line[:60], "\n".join(lines[number : number + 20]))
    return campaign


def told(campaign: Campaign) -> str:
    """The figures, and each finding once."""
    lines = [f"{campaign.requests} requests"]
    lines += [f"  {status}: {count}" for status, count in sorted(campaign.statuses.items())]
    lines += [f"the slowest answer: {campaign.slowest[0]:.1f} s, {campaign.slowest[1]}", "answered with success:"]
    lines += [f"  {label}: {count}" for label, count in sorted(campaign.reached.items())]
    for finding, shown in campaign.findings.items():
        lines.append(f"FOUND {campaign.counts[finding]} times: {' '.join(filter(None, finding))}\n{shown}\n")
    lines.append(f"{sum(campaign.counts.values())} findings of {len(campaign.findings)} kinds")
    return "\n".join(lines) + "\n"


def main() -> int:
    """Fuzz, and say what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--under", default="/", help="only paths that begin so, such as /v1/")
    parser.add_argument("--scripted-answers", action="store_true", help="no model answers: each prompt has an answer")
    options = parser.parse_args()
    for number in (signal.SIGINT, signal.SIGTERM):  # in the background too, where a shell has them ignored
        signal.signal(number, signal.default_int_handler)
    with tempfile.TemporaryDirectory() as folder:
        root, size = Path(folder).resolve(), Round(under=options.under, scripted=options.scripted_answers)
        campaign = fuzz(root, build_tiny_model(root / "base"), options.seed, options.requests, size)
    sys.stdout.write(told(campaign))
    return 1 if campaign.findings else 0


if __name__ == "__main__":
    sys.exit(main())
