"""The curves of a job: what the API has, each step once, and every kind of figure that there is."""

import re

from playwright.sync_api import Page, expect
from support.full_server import STEPS
from support.looked_at import LookedAt
from support.running_server import RunningServer

KINDS = ("Loss", "Learning rate", "Gradient norm", "Tokens a second", "Memory in MB")


def test_a_job_that_is_over_has_a_chart_for_each_kind_of_figure_and_its_last_ones(
    open_page: LookedAt, full_server: RunningServer, full_jobs: dict[str, str]
) -> None:
    page = open_page(full_server, f"jobs/{full_jobs['completed']}")
    for kind in KINDS:
        expect(page.get_by_role("img", name=f"{kind}: ")).to_have_count(1)
    expect(page.get_by_role("img", name="Loss: ")).to_have_attribute("aria-label", _loss(full_server, full_jobs))
    expect(page.locator(".facts").first).to_contain_text("Memory")


def _loss(server: RunningServer, jobs: dict[str, str]) -> re.Pattern[str]:
    answer = server.get(f"/api/jobs/{jobs['completed']}/metrics?limit=1000").json()
    first, last = answer["metrics"][0]["loss"], answer["metrics"][-1]["loss"]
    held_out = answer["evaluations"][-1]["metrics"]["eval_loss"]
    words = rf"loss {last:.4g}, from {first:.4g}; smoothed [\d.]+, from {first:.4g}; held out {held_out:.4g}, from"
    return re.compile(rf"^Loss: {words} [\d.]+; up to step {STEPS}$")


def curves(page: Page, script: str) -> object:
    """What a script makes of `Curves` that have read nothing yet, and are ready."""
    return page.evaluate(
        """async (script) => {
          const { Curves } = await import("/page/curves.js");
          const made = new Curves("train_0");
          const step = (number, attempt, loss) => ({
            position: made.position + 1, type: "MetricsLogged", data: { attempt, steps: [{ step: number, loss }] },
          });
          const real = window.fetch;
          window.fetch = async () => new Response(JSON.stringify(
            { metrics: [], evaluations: [], last_position: 0, has_more: false }));
          await made.load();
          window.fetch = real;
          return ({
            repeated: () => {
              const record = step(1, 1, 2);
              made.take(record);
              made.take(record);
              return made.step;
            },
            resumed: () => {
              for (let number = 1; number <= 5; number += 1) made.take(step(number, 1, number));
              const before = made.smoothed("loss", 0.5)[1].length;
              made.take({ position: 6, type: "TrainingStarted", data: { attempt: 2, report: { resumed_step: 3 } } });
              made.take(step(4, 2, 40));
              const [values, average] = made.smoothed("loss", 0.5);
              const whole = made.smoothed("loss", 0)[0];
              return [before, made.step, made.attempt, values, average.length, average.at(-1), whole.length];
            },
            evaluated: () => {
              for (const number of [10, 20]) made.take(step(number, 1, 1));
              for (const [number, loss] of [[10, 5], [15, 6], [25, 7]]) {
                const report = { step: number, metrics: { eval_loss: loss } };
                made.take({ position: made.position + 1, type: "EvaluationLogged", data: { attempt: 1, report } });
              }
              const column = made.evaluated("eval_loss");
              return [column, made.has("loss"), made.has("kl")];
            },
          })[script]();
        }""",
        script,
    )


def test_a_record_that_comes_twice_is_taken_once(open_page: LookedAt, empty_server: RunningServer) -> None:
    assert curves(open_page(empty_server), "repeated") == [1]


def test_what_a_resumed_attempt_makes_again_takes_the_place_of_what_was_there(
    open_page: LookedAt, empty_server: RunningServer
) -> None:
    mean = correction = 0.0
    for number, value in enumerate((1, 2, 3, 40), start=1):
        mean, correction = 0.5 * mean + 0.5 * value, 1 - 0.5**number
    found = curves(open_page(empty_server), "resumed")
    assert found == [5, [1, 2, 3, 4], [1, 1, 1, 2], [1, 2, 3, 40], 4, mean / correction, 4]


def test_an_evaluation_at_a_step_without_figures_stands_at_the_next_one(
    open_page: LookedAt, empty_server: RunningServer
) -> None:
    assert curves(open_page(empty_server), "evaluated") == [[5, 7], True, False]
