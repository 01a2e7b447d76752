"""Every program of `benchmarks/` in turn, each a process of its own, and the page of their results.

    python benchmarks/every_figure.py [--quick] [--only NAME …] [--write]

One that fails, or takes longer than it may, is named, and the others go on. Results are kept in `build/bench`. The page
`benchmarks/RESULTS.md` is written by a run of all in full size; of others it goes to `build/bench`. `--write`: measure
nothing, and write `benchmarks/RESULTS.md` from the results that are kept.
"""

import argparse
import contextlib
import importlib.util
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import msgspec
from figures import RESULTS, Program, Result, commit
from results import page

FOLDER = Path(__file__).parent
TESTS = str(FOLDER.parent / "tests")
BUILD = FOLDER.parent / "build" / "bench"
LONGEST_SECONDS = 300
_DECLARES = re.compile(r"^PROGRAM = Program\(", re.MULTILINE)


def programs() -> dict[str, Program]:
    """All that have figures, by their names."""
    if TESTS not in sys.path:
        sys.path.append(TESTS)  # some use what the tests are supported by
    paths = sorted(path for path in FOLDER.glob("*.py") if _DECLARES.search(path.read_text()))
    return {path.stem: _program(path) for path in paths}


def _program(path: Path) -> Program:
    """What a file declares: by its path, for its name may be that of another module too."""
    spec = importlib.util.spec_from_file_location(f"program_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise AssertionError(f"{path} is no Python")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    program: Program = module.PROGRAM
    return program


def run(name: str, flags: list[str], kept: Path) -> Result | None:
    """Run one to its end; None if it left no result, and one with its failure if it failed."""
    kept.unlink(missing_ok=True)
    began = time.monotonic()
    paths = os.pathsep.join([TESTS, *filter(None, [os.environ.get("PYTHONPATH")])])
    failure = ""
    with tempfile.TemporaryDirectory(prefix="figures-", ignore_cleanup_errors=True) as scratch:
        process = subprocess.Popen(
            [sys.executable, str(FOLDER / f"{name}.py"), *flags],
            env={**os.environ, RESULTS: str(kept), "PYTHONPATH": paths, "TMPDIR": scratch},
            start_new_session=True,
        )
        try:
            status = process.wait(LONGEST_SECONDS)
        except subprocess.TimeoutExpired:
            failure = f"took longer than {LONGEST_SECONDS} s"
            status = 1
        finally:
            if process.poll() is None:
                end(process)
            end_all_of(scratch)
    if not kept.exists():
        result = Result(
            program=name,
            began=time.time(),
            seconds=time.monotonic() - began,
            quick="--quick" in flags,
            load=(os.getloadavg()[0],) * 2,
            failure=failure or f"ended with {status} and left no result",
            commit=commit(),
        )
        kept.write_bytes(msgspec.json.encode(result))
    elif failure and (part := _read(kept)) is not None:  # what it had measured by then
        kept.write_bytes(msgspec.json.encode(msgspec.structs.replace(part, failure=failure)))
    return _read(kept)


def end(process: "subprocess.Popen[bytes]") -> None:
    """End it and what it started: first asked, then not."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(10)


def end_all_of(scratch: str) -> None:
    """End what a program left: trainers outlive their server, and have its folder in their command or environment."""
    word = scratch.encode()
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if any(word in (folder / name).read_bytes() for name in ("cmdline", "environ")):
                os.kill(int(folder.name), signal.SIGKILL)


def main() -> int:
    """Run what is asked for, and write the page. The exit code is 1 where a program failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", action="append", default=[], help="a part of a program's name")
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    if options.quick and options.write:
        parser.error("--write makes the page of what was measured in full size: leave out --quick")
    found = programs()
    folder = BUILD / ("quick" if options.quick else "full")
    folder.mkdir(parents=True, exist_ok=True)
    asked = [name for name in found if not options.only or any(part in name for part in options.only)]
    began = time.monotonic()
    failed = []
    for name in () if options.write else asked:
        print(f"== {name}, after {time.monotonic() - began:.0f} s", flush=True)
        result = run(name, ["--quick"] if options.quick else [], folder / f"{name}.json")
        if result is None or result.failure:
            failed.append(name)
            print(f"== {name} FAILED: {'no result' if result is None else result.failure}", flush=True)
    results = {name: result for name in found if (result := _read(folder / f"{name}.json")) is not None}
    whole = options.write or (asked == list(found) and not options.quick)
    path = (FOLDER if whole else folder) / "RESULTS.md"
    path.write_text(page(found, results))
    for result in results.values():
        if result.program in asked:
            print(*(measured.line() for measured in result.measured), sep="\n")
    print(f"{time.monotonic() - began:.0f} s; the page is {path}")
    if failed:
        print(f"failed: {', '.join(failed)}")
    return 1 if failed else 0


def _read(path: Path) -> Result | None:
    return msgspec.json.decode(path.read_bytes(), type=Result) if path.exists() else None


if __name__ == "__main__":
    sys.exit(main())
