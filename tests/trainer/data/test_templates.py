"""A model's chat template is a stranger's program: what never ends, or eats memory, is ended."""

from __future__ import annotations

import resource
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest
from support.tiny_model import CHATML, build_tiny_model
from support.trainer_attempts import Attempt, child_environment, questions, write_dataset
from transformers import AutoTokenizer

from trainer_entry import wire
from trainer_entry.data.prompts import render
from trainer_entry.data.records import Turn
from trainer_entry.runtime.bounds import OutOfBounds, bounded, time_for
from trainer_entry.runtime.failures import ChatTemplateFails, naming_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from transformers import PreTrainedTokenizerBase

ASKED = [Turn("user", "Why?"), Turn("assistant", "Yeast.")]
LOOPS = "{% for a in range(99999) %}" * 3
ENDS = "{% endfor %}" * 3
ENDLESS = {
    "loops": LOOPS + ENDS,
    "a macro": "{% macro again(n) %}{% for a in range(99999) %}{{ again(n) if false }}{% endfor %}{% endmacro %}"
    "{% for a in range(99999) %}{{ again(1) }}{% endfor %}",
    "powers": LOOPS + "{% set x = (a + 3) ** 99999 %}" + ENDS,
    "a pattern": LOOPS + "{{ ('a' * 9999) | wordwrap(3) }}" + ENDS,
}
GREEDY = {
    "a text": "{{ 'a' * 10 ** 10 }}",
    "a list": "{{ [0] * 10 ** 9 }}",
    "a growing list": "{% set n = namespace(x=[0]) %}{% for i in range(99) %}{% set n.x = n.x + n.x %}{% endfor %}",
    "a growing text": "{% set n = namespace(x='ab') %}{% for i in range(99) %}{% set n.x = n.x ~ n.x %}{% endfor %}",
    "a wide field": "{{ '%999999999d' | format(1) }}{{ '%999999999d' | format(1) }}{{ '%999999999d' | format(1) }}",
}
# Compared by C, which no signal interrupts: 2 to the power of 60 comparisons.
UNSTOPPABLE = (
    "{% set n = namespace(x=[0], y=[0]) %}{% for i in range(60) %}{% set n.x = [n.x, n.x] %}{% set n.y = [n.y, n.y] %}"
    "{% endfor %}{{ n.x == n.y }}"
)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> PreTrainedTokenizerBase:
    model = build_tiny_model(tmp_path_factory.mktemp("templates") / "model")
    return AutoTokenizer.from_pretrained(model)


@pytest.fixture
def with_template(tokenizer: PreTrainedTokenizerBase) -> Iterator[Callable[[str], PreTrainedTokenizerBase]]:
    before = tokenizer.chat_template

    def change(template: str) -> PreTrainedTokenizerBase:
        tokenizer.chat_template = template
        return tokenizer

    yield change
    tokenizer.chat_template = before


@pytest.mark.parametrize("template", ENDLESS.values(), ids=ENDLESS)
def test_a_template_that_never_ends_is_ended_and_the_line_named(
    with_template: Callable[[str], PreTrainedTokenizerBase], template: str
) -> None:
    with (
        pytest.raises(ChatTemplateFails, match=r"Line 3 of the dataset: .*turns user, assistant: .*0\.3 s.*never end"),
        naming_line(3, 0.3),
    ):
        render(with_template(template), ASKED, answer_follows=False)
    assert signal.getitimer(signal.ITIMER_PROF)[0] == signal.getitimer(signal.ITIMER_VIRTUAL)[0] == 0


@pytest.mark.parametrize("template", GREEDY.values(), ids=GREEDY)
def test_a_template_that_eats_memory_is_ended(
    with_template: Callable[[str], PreTrainedTokenizerBase], template: str
) -> None:
    before = resource.getrlimit(resource.RLIMIT_DATA)
    with pytest.raises(ChatTemplateFails, match=r"1024 MiB of memory|makes a text of \d+ characters"):
        render(with_template(template), ASKED, answer_follows=False)
    assert resource.getrlimit(resource.RLIMIT_DATA) == before
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < 4 << 20


def test_a_template_that_writes_without_end_is_ended(
    with_template: Callable[[str], PreTrainedTokenizerBase],
) -> None:
    with pytest.raises(ChatTemplateFails, match=r"makes a text of 5000000 characters"):
        render(with_template("{{ 'a' * 5000000 }}"), ASKED, answer_follows=False)
    long = [Turn("user", "a" * 5_000_000)]
    assert len(render(with_template(CHATML), long, answer_follows=True)) > 5_000_000


def test_the_turns_of_a_record_have_their_time_together() -> None:
    with time_for(0.2):
        until_the_end = pytest.raises(OutOfBounds, match=r"0\.2 s")
        with until_the_end:
            for _ in range(1000):
                with bounded():
                    end = time.process_time() + 0.02
                    while time.process_time() < end:
                        pass
        with pytest.raises(OutOfBounds), bounded():
            pass
    with bounded():  # the next one has its own
        pass


def test_what_no_signal_reaches_ends_with_the_process() -> None:
    program = f"""
from jinja2.sandbox import ImmutableSandboxedEnvironment
from trainer_entry.runtime import bounds

bounds._GRACE_SECONDS = 0.2
with bounds.time_for(0.2), bounds.bounded():
    ImmutableSandboxedEnvironment().from_string({UNSTOPPABLE!r}).render()
"""
    done = subprocess.run(
        [sys.executable, "-c", program], env=child_environment(), check=False, timeout=60, capture_output=True
    )
    assert done.returncode == -signal.SIGVTALRM, done.stderr


@pytest.mark.training
def test_a_training_fails_by_the_line_whose_record_never_ends(tmp_path: Path) -> None:
    # given a template that ends for every record but one
    hostile = "{% if messages[0].content == 'What is 2?' %}" + LOOPS + ENDS + "{% endif %}" + CHATML
    model = build_tiny_model(tmp_path / "model", chat_template=hostile)
    dataset = write_dataset(tmp_path / "data.jsonl", questions(4))
    # when
    attempt = Attempt(tmp_path / "attempt", model, dataset, max_steps=1)
    # then
    assert attempt.wait() == 1
    failed = attempt.one(wire.TrainerFailed)
    assert failed.kind == "ChatTemplateFails"
    assert failed.message.startswith("Line 3 of the dataset: ")
    assert "more than 10 s" in failed.message
