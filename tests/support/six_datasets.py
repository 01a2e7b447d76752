"""`python -m support.six_datasets LOG`: open a log, record six datasets in it, and say what came of each.

It begins once it is given a line: strace follows it by then.
"""

import asyncio
import sys
from pathlib import Path

from modelforge.errors import LogUnusable, StorageFull
from support.followed import let_be_followed
from support.running_log import running_log
from support.scenario import register_dataset


def say(word: str) -> None:
    sys.stdout.write(f"{word}\n")
    sys.stdout.flush()


async def record_six(path: Path) -> None:
    async with running_log(path) as running:
        say("open")
        for number in range(6):
            try:
                await running.submit(register_dataset(filename=f"{number}.jsonl"))
                say(str(number))
            except StorageFull:
                say("full")
            except LogUnusable:
                say("unusable")


if __name__ == "__main__":
    let_be_followed()
    sys.stdin.readline()
    asyncio.run(record_six(Path(sys.argv[1])))
