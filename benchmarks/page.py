"""Frames of the page while a curve grows: `PYTHONPATH=tests python benchmarks/page.py [--seconds 30] [--points 10000]`.

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
import tempfile
import time
from collections import Counter
from importlib.resources import files
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, sync_playwright
from support.attempt_files import model_in, training, until_step
from support.browser import browser as command
from support.recital import Line, evaluated, step, wait, write_recital
from support.running_server import RECORDS, RunningServer, scripted_server

LIVE_A_SECOND = 10
LOADS = 5
LONGEST_MS = 50
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


def figures(number: int) -> dict[str, object]:
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
        said.append(step(number, total, **figures(number)))
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


def watched(browser: Browser, page: Page, seconds: int) -> None:
    """What its frames and tasks were for so many seconds."""
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


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=30)
    parser.add_argument("--points", type=int, default=10_000)
    options = parser.parse_args()
    folder = files("modelforge") / "web" / "page"
    scripts = [*folder.iterdir(), *(folder / "vendor").iterdir()]
    contents = [one.read_bytes() for one in scripts if one.name.endswith((".js", ".mjs"))]
    packed = sum(len(gzip.compress(one)) for one in contents)
    print(f"scripts: {sum(map(len, contents)) / 1000:.0f} KB, packed {packed / 1000:.0f} KB")
    live = 2 * options.seconds + 60
    with contextlib.ExitStack() as ends:
        scratch = Path(ends.enter_context(tempfile.TemporaryDirectory()))
        playwright = ends.enter_context(sync_playwright())
        still, server = (scripted_server(scratch / name, "--stalled-seconds", "3600") for name in ("still", "data"))
        for one in (still, server):
            ends.callback(one.end)
            ends.callback(one.post, "/api/stop_training")
        begin(still, scratch / "a", [step(1, 10, **figures(1)), wait(3600)], steps=10)
        steps = options.points + LIVE_A_SECOND * live
        job = begin(server, scratch / "b", lines(options.points, live), steps=steps)
        until_step(server, job, options.points)
        program, *flags = command()
        browser = playwright.chromium.launch(executable_path=program, args=flags[1:])
        page = browser.new_page(viewport={"width": 1440, "height": 900})
        for name, place in (
            ("a job", f"{server.url}/#/jobs/{job}"),
            ("Home", f"{server.url}/#/"),
            ("Home, where nothing happens", f"{still.url}/#/"),
        ):
            page.goto(place)
            page.locator("canvas").first.wait_for()
            print(f"{name}:")
            watched(browser, page, options.seconds)
        times = [drawn(browser, server.url) for _ in range(LOADS)]
        paints, wholes = zip(*times, strict=True)
        print(f"first paint {statistics.median(paints):.0f} ms, with the job {statistics.median(wholes):.0f} ms")
        print(f"  the slowest of {LOADS}: {max(paints):.0f} and {max(wholes):.0f} ms")
        browser.close()


if __name__ == "__main__":
    main()
