"""Frames of the page while a curve grows: `PYTHONPATH=tests python benchmarks/page.py [--seconds 15] [--points 10000]`.

A server with a scripted trainer that logs so many steps at once, and then ten a second. The page is open in Chromium on
the job and on Home, for so many seconds each; and on Home of a server where nothing happens, since a machine that is
busy loses frames by itself. Told are frames (the time between two of them by requestAnimationFrame), the longest task
of the page's thread, by the clock and by the processor's time, which a busy machine does not lengthen, how soon the
first view is drawn, and what the scripts weigh.

What must hold: no frame of more than 50 ms, drawn within 1 s, under 400 KB of scripts and 150 KB packed.
"""

import argparse
import contextlib
import gzip
import json
import math
import statistics
import time
from collections import Counter
from importlib.resources import files
from pathlib import Path
from typing import Any

from figures import Figure, Program, Rounds
from playwright.sync_api import Browser, Page, sync_playwright
from support.attempt_files import model_in, training, until_step
from support.browser import browser as command
from support.recital import Line, evaluated, step, wait, write_recital
from support.running_server import RECORDS, RunningServer, scripted_server

LIVE_A_SECOND = 10
LOADS = 5
LONGEST_MS = 50
_GROWING = "The page in Chromium on a job with a curve of 10,000 points that grows by ten a second, and on Home."
FRAME = Figure(
    name="Longest frame of the page while a curve grows / where nothing happens",
    unit="ms",
    yardstick="where nothing happens",
    note=f"{_GROWING} A machine that is busy loses frames by itself.",
)
TASK = Figure(
    name="Longest task of the page's thread, by the processor's time",
    unit="ms",
    at_most=LONGEST_MS,
    note=f"{_GROWING} The time of the processor is not lengthened by a machine that is busy.",
)
_LOADED = "From the request for the page with that job, of five loads."
PAINT = Figure(name="First paint of the page", unit="ms", at_most=1000, note=_LOADED)
DRAWN = Figure(name="The page with the job's figures", unit="ms", at_most=1000, note=_LOADED)
SCRIPTS = Figure(name="Scripts of the page", unit="KB", at_most=400, note="All of them together.")
PACKED = Figure(name="The same, packed", unit="KB", at_most=150, note="Each by gzip.")
_WATCH = """() => {
  if (window.seen) return void seen.splice(0);
  window.seen = [];
  let last = performance.now();
  const each = (now) => { seen.push(now - last); last = now; requestAnimationFrame(each); };
  requestAnimationFrame(each);
}"""
_TASK = "ThreadControllerImpl::RunTask"
_DRAWN = """
  new MutationObserver(() => {
    if (!window.drawn && document.querySelector("main .hero")) {
      requestAnimationFrame(() => setTimeout(() => { window.drawn ??= performance.now(); }));
    }
  }).observe(document, { childList: true, subtree: true });
"""


def step_figures(number: int) -> dict[str, object]:
    """Those of a step: enough for eight charts."""
    noise = math.sin(number * 12.9898) * 43758.5453 % 1 - 0.5
    return {
        "loss": 0.8 + 2 * math.exp(-number / 3000) + 0.2 * noise,
        "learning_rate": 2e-4 * math.exp(-number / 5000),
        "grad_norm": 1 + noise,
        "tokens_per_second": 2400 + 60 * noise,
        "reward": 1 - math.exp(-number / 3000) + 0.2 * noise,
        "kl": 0.1 + 0.01 * noise,
        "memory_mb": 1820.0,
        "gpu_memory_mb": 9100.0,
    }


def lines(points: int, seconds: int) -> list[Line]:
    """Many at once, then ten a second, and at the end nothing."""
    total = points + LIVE_A_SECOND * seconds
    said: list[Line] = []
    for number in range(1, total + 1):
        said.append(step(number, total, **step_figures(number)))
        if number % 500 == 0:
            said.append(evaluated(number, total, eval_loss=0.9 + 2 * math.exp(-number / 3000)))
        if number > points:
            said.append(wait(1 / LIVE_A_SECOND))
    return [*said, wait(3600)]


def begin(server: RunningServer, folder: Path, said: list[Line], *, steps: int) -> str:
    """Start a job whose trainer says this; its id."""
    folder.mkdir()
    model = model_in(folder)
    write_recital(model, said)
    server.upload(RECORDS).raise_for_status()
    answer = server.post("/api/start_training", training(model, "grows", max_steps=steps, eval_split=0.2))
    answer.raise_for_status()
    return str(answer.json()["job_id"])


def watched(browser: Browser, page: Page, seconds: int) -> tuple[float, float]:
    """The longest frame and the longest task by the processor's time, of so many seconds, in milliseconds."""
    page.wait_for_timeout(1500)
    browser.start_tracing(page=page, categories=["toplevel", "devtools.timeline"])
    page.evaluate(_WATCH)
    time.sleep(seconds)
    frames = sorted(page.evaluate("seen"))
    tasks = tasks_in(json.loads(browser.stop_tracing())["traceEvents"])
    wall, own = max(one for one, _ in tasks), max(one for _, one in tasks)
    print(f"  {len(frames)} frames, median {statistics.median(frames):.1f} ms, longest {frames[-1]:.0f} ms", end=", ")
    print(f"{sum(one > LONGEST_MS for one in frames)} over {LONGEST_MS} ms", end="; ")
    print(f"longest task {wall:.0f} ms, by the processor's time {own:.0f} ms", end="; ")
    print(f"{sum(one for _, one in tasks) / seconds:.0f} ms of the processor a second")
    return frames[-1], own


def tasks_in(events: list[dict[str, Any]]) -> list[tuple[float, float]]:
    """Each task of the page's main thread: milliseconds by the clock, and by the processor."""
    threads = Counter((one["pid"], one["tid"]) for one in events if one["name"] == "FireAnimationFrame")
    ((main, _),) = threads.most_common(1)
    found = [one for one in events if (one["pid"], one["tid"]) == main and one["name"] == _TASK]
    return [(one["dur"] / 1000, one["tdur"] / 1000) for one in found if one.get("dur") and "tdur" in one]


def drawn(browser: Browser, url: str) -> tuple[float, float]:
    """Milliseconds from the request to the first paint, and to the job's figures."""
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    page = context.new_page()
    page.add_init_script(_DRAWN)
    page.goto(url)
    while not page.evaluate("window.drawn"):
        time.sleep(0.05)
    first, whole = page.evaluate(
        "[performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? NaN, window.drawn]"
    )
    context.close()
    return first, whole


def options(parser: argparse.ArgumentParser) -> None:
    """What else can be asked for."""
    parser.add_argument("--seconds", type=int, help="that each view is watched (15)")
    parser.add_argument("--points", type=int, help="of the curve (10,000)")


def measure(rounds: Rounds) -> None:
    """Tell the weight of the scripts, watch the views, and load the first some times."""
    seconds = rounds.options.seconds or (3 if rounds.quick else 15)
    points = rounds.options.points or (1000 if rounds.quick else 10_000)
    folder = files("modelforge") / "web" / "page"
    scripts = [*folder.iterdir(), *(folder / "vendor").iterdir()]
    contents = [one.read_bytes() for one in scripts if one.name.endswith((".js", ".mjs"))]
    rounds.tell(SCRIPTS, [sum(map(len, contents)) / 1000])
    rounds.tell(PACKED, [sum(len(gzip.compress(one)) for one in contents) / 1000])
    live = 2 * seconds + 60
    with contextlib.ExitStack() as ends:
        scratch = rounds.folder()
        playwright = ends.enter_context(sync_playwright())
        still, server = (scripted_server(scratch / name, "--stalled-seconds", "3600") for name in ("still", "data"))
        for one in (still, server):
            ends.callback(one.end)
            ends.callback(one.post, "/api/stop_training")
        begin(still, scratch / "a", [step(1, 10, **step_figures(1)), wait(3600)], steps=10)
        steps = points + LIVE_A_SECOND * live
        job = begin(server, scratch / "b", lines(points, live), steps=steps)
        until_step(server, job, points)
        program, *flags = command()
        browser = playwright.chromium.launch(executable_path=program, args=flags[1:])
        page = browser.new_page(viewport={"width": 1440, "height": 900})
        seen = []
        for name, place in (
            ("a job", f"{server.url}/#/jobs/{job}"),
            ("Home", f"{server.url}/#/"),
            ("Home, where nothing happens", f"{still.url}/#/"),
        ):
            page.goto(place)
            page.locator("canvas").first.wait_for()
            print(f"{name}:")
            seen.append(watched(browser, page, seconds))
        *busy, (idle, _) = seen
        rounds.tell(FRAME, [max(frame for frame, _ in busy)], [idle])
        rounds.tell(TASK, [max(task for _, task in busy)])
        times = [drawn(browser, server.url) for _ in range(LOADS)]
        paints, wholes = zip(*times, strict=True)
        rounds.tell(PAINT, paints)
        rounds.tell(DRAWN, wholes)
        browser.close()


PROGRAM = Program(__doc__, measure, SCRIPTS, PACKED, FRAME, TASK, PAINT, DRAWN, options=options)

if __name__ == "__main__":
    PROGRAM.main()
