"""The playground of the page, on answers that are told beforehand."""

import ast
import json
import re
import shlex
from collections.abc import Iterator

import pytest
from playwright.sync_api import Locator, Page, expect
from support.looked_at import LookedAt, until
from support.openai_answers import asked_of, said, withdrawn
from support.running_server import RunningServer
from support.told_models import CONTEXT, COOK, HOSTILE, HOSTILE_MODEL, READER, WRITER, told_server

from trainer_entry import wire


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    yield from told_server(tmp_path_factory.mktemp("playground"))


def say(page: Page, text: str) -> None:
    """Say it in the chat, and wait for the end of what is answered."""
    box = page.get_by_label("Say something")
    box.fill(text)
    box.press("Enter")
    expect(page.get_by_role("button", name="Send")).to_be_visible()


def answers(page: Page) -> Locator:
    return page.get_by_role("article").locator(".said")


def asked(page: Page, number: int = -1) -> wire.Generate:
    """What the worker was asked for one of the answers."""
    return asked_of(answers(page).all_text_contents()[number])


def test_two_models_answer_the_same_prompt_side_by_side(open_page: LookedAt, server: RunningServer) -> None:
    page = open_page(server, f"playground?model={COOK}")
    page.get_by_role("button", name="Ask two side by side").click()
    say(page, "Why does bread rise?")
    tuned, base = asked(page, 0), asked(page, 1)
    assert (tuned.adapter_path, base.adapter_path) == ("/data/models/cook", None)
    assert tuned.turns == base.turns
    places = [box for one in page.get_by_role("article").all() if (box := one.bounding_box())]
    assert len({place["y"] for place in places}) == 1
    assert len({place["x"] for place in places}) == len(places) == len((tuned, base))
    expect(page.get_by_role("article", name="Answer of base, untuned")).to_contain_text("1 tokens · 1 ms")


def test_each_side_of_a_chat_goes_on_from_its_own_answers(open_page: LookedAt, server: RunningServer) -> None:
    page = open_page(server, f"playground?model={COOK}")
    page.get_by_label("Say something").press("Shift+Enter")
    expect(page.get_by_label("Say something")).to_have_value("\n")
    say(page, said("Etna", "."))
    page.get_by_text("Sampling").click()
    page.get_by_role("textbox", name="System").fill("Be short.")
    page.get_by_label("Temperature").fill("0")
    page.get_by_label("Seed").fill("7")
    page.get_by_label("Texts that end the answer").fill("\\n\nEND")
    say(page, "Another?")
    last = asked(page)
    assert [(turn.role, turn.content) for turn in last.turns] == [
        ("system", "Be short."),
        ("user", said("Etna", ".")),
        ("assistant", "Etna."),
        ("user", "Another?"),
    ]
    assert (last.temperature, last.seed, last.stop) == (0, 7, ("\n", "END"))
    page.get_by_role("button", name="Clear").click()
    expect(page.get_by_role("article")).to_have_count(0)


def test_stop_ends_an_answer_and_keeps_what_came(open_page: LookedAt, server: RunningServer) -> None:
    before = withdrawn(server)
    page = open_page(server, f"playground?model={COOK}")
    box = page.get_by_label("Say something")
    box.fill(said("Bread ", "rises", wait=True))
    box.press("Enter")
    expect(answers(page)).to_have_text("Bread rises")
    page.get_by_role("button", name="Stop").click()
    expect(page.get_by_role("article")).to_contain_text("stopped by you")
    assert withdrawn(server, before + 1) == before + 1
    open_page.go(page, "models")
    open_page.go(page, f"playground?model={COOK}")
    say(page, said("Again."))
    assert answers(page).all_text_contents() == ["Bread rises", "Again."], "a look at another view costs nothing"
    box.fill(said(wait=True))
    box.press("Enter")
    expect(page.get_by_text("waits until the model is loaded")).to_be_visible()
    page.get_by_role("button", name="Stop").click()
    expect(page.get_by_text("waits until the model is loaded")).to_be_hidden()


def test_the_probabilities_of_tokens_are_reached_by_the_keyboard(open_page: LookedAt, server: RunningServer) -> None:
    page = open_page(server, f"playground?model={COOK}")
    page.get_by_label("Show probabilities").check()
    say(page, said("Bread", " rises", "."))
    tokens = page.get_by_role("group", name="The answer's tokens").get_by_role("button")
    expect(answers(page)).to_have_text("Bread rises.")
    assert [token.get_attribute("tabindex") for token in tokens.all()] == ["0", "-1", "-1"]
    page.get_by_role("button", name="Ask again").focus()
    page.keyboard.press("Tab")
    expect(tokens.first).to_be_focused()
    page.keyboard.press("ArrowRight")
    expect(tokens.nth(1)).to_be_focused()
    rows = page.locator(".alternatives tbody").get_by_role("row").all_inner_texts()
    assert [row.split("\t") for row in rows] == [
        ["␣rises", "60.7%"],
        *(["other␣" + str(number), "60.7%"] for number in range(1, 5)),
    ]
    page.keyboard.press("Escape")
    expect(page.locator(".alternatives")).to_have_count(0)
    tokens.last.hover()
    expect(page.locator(".alternatives")).to_contain_text("other␣4")


def test_an_answer_is_marked_in_its_context(open_page: LookedAt, server: RunningServer) -> None:
    page = open_page(server, f"playground?model={READER}")
    expect(page.get_by_text("Show probabilities")).to_have_count(0)
    page.get_by_label("Context", exact=True).fill(CONTEXT)
    begin = CONTEXT.index("tiny bubbles")  # in characters: the one before it is two for a browser
    page.get_by_role("textbox", name="Question").fill(said("tiny bubbles", score=0.83, start=begin, end=begin + 12))
    page.get_by_role("textbox", name="Question").press("Enter")
    expect(page.locator("mark")).to_have_text("tiny bubbles")
    expect(page.get_by_role("region", name="The context")).to_have_text(CONTEXT)
    expect(page.get_by_role("article")).to_contain_text("score 83%")
    page.get_by_role("textbox", name="Question").fill(said("", score=0.2))
    page.get_by_role("button", name="Send").click()
    expect(page.get_by_role("article").last).to_contain_text("The context has no answer")


def test_a_document_is_summed_up(open_page: LookedAt, server: RunningServer) -> None:
    page = open_page(server, f"playground?model={WRITER}")
    box = page.get_by_label("Document to sum up")
    box.fill("A long\ndocument")
    box.press("Control+Enter")
    expect(answers(page)).to_contain_text("summarization")
    assert (asked(page).task, asked(page).prompt) == ("summarization", "A long\ndocument")


def test_what_is_refused_is_said_in_the_servers_words(open_page: LookedAt, server: RunningServer) -> None:
    open_page.allow("Failed to load resource")
    page = open_page(server, f"playground?model={COOK}")
    for how in ("memory", "busy", "ModelUnavailable"):
        prompt = said(fail=how)
        say(page, prompt)
        refused = server.post("/api/playground/generate", {"model_id": COOK, "prompt": prompt}).json()
        expect(page.get_by_role("alert").last).to_contain_text(refused["error"])
        expect(page.get_by_role("alert").last).to_contain_text(refused["detail"])
    page.get_by_text("Sampling").click()
    page.get_by_label("Top p").fill("2")
    say(page, "Hello")
    expect(page.locator(".field.wrong")).to_contain_text("Top p")


def test_a_prompt_is_changed_and_sent_again(open_page: LookedAt, server: RunningServer) -> None:
    page = open_page(server, f"playground?model={COOK}")
    say(page, said("One."))
    say(page, said("Two."))
    page.get_by_role("button", name="Edit").first.click()
    page.get_by_label("What was asked, to change").fill("Else?")
    page.get_by_role("button", name="Send again").click()
    expect(page.get_by_role("article")).to_have_count(1)
    expect(answers(page)).to_contain_text("Else?")
    assert [turn.content for turn in asked(page).turns] == ["Else?"]


def test_a_request_is_copied_for_a_shell_and_for_python(open_page: LookedAt, server: RunningServer) -> None:
    page = open_page(server, f"playground?model={COOK}")
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    say(page, 'It\'s "bread" \\ and\u2028more')
    page.get_by_role("button", name="Copy as curl").click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    *_, address, _, body = shlex.split(page.evaluate("navigator.clipboard.readText()"))
    assert address == f"{server.url}/api/playground/generate"
    assert server.post("/api/playground/generate", json.loads(body)).status_code == 200
    assert json.loads(body)["messages"] == [{"role": "user", "content": 'It\'s "bread" \\ and\u2028more'}]
    page.get_by_role("button", name="Copy as Python").click()
    until(page, "async () => (await navigator.clipboard.readText()).startsWith('import')")
    program = ast.parse(page.evaluate("navigator.clipboard.readText()"))
    (call,) = [one for one in ast.walk(program) if isinstance(one, ast.Call) and one.keywords]
    assert ast.literal_eval(call.keywords[0].value) == json.loads(body)


@pytest.mark.parametrize("is_let", [True, False])
def test_what_cannot_be_copied_by_the_clipboard_is_copied_or_selected(
    open_page: LookedAt, server: RunningServer, *, is_let: bool
) -> None:
    """As over http from another machine; and where a browser lets a page do neither."""
    page = open_page(server, f"playground?model={COOK}")
    page.evaluate("Object.defineProperty(navigator, 'clipboard', { value: undefined })")
    if not is_let:
        page.evaluate("document.execCommand = () => false")
    say(page, "Hello")
    page.get_by_role("button", name="Copy as curl").click()
    if is_let:
        expect(page.get_by_role("button", name="Copied")).to_be_focused()
        box = page.get_by_label("Say something")
        box.press("Control+v")
        expect(box).to_have_value(re.compile(r"curl .*/api/playground/generate", re.DOTALL))
    else:
        expect(page.get_by_label("To copy by hand")).to_be_focused()
        assert page.evaluate("getSelection().toString()").startswith("curl ")


def test_a_base_is_asked_by_its_name(open_page: LookedAt, server: RunningServer) -> None:
    page = open_page(server, "playground")
    page.get_by_label("Model", exact=True).select_option("A base by its name")
    say(page, "Hello")
    assert (asked(page).model_path, asked(page).adapter_path) == (wire.BUILT_IN_MODEL, None)


def test_hostile_names_and_answers_are_text(open_page: LookedAt, server: RunningServer) -> None:
    page = open_page(server, f"playground?model={HOSTILE_MODEL}")
    say(page, said(HOSTILE))
    expect(answers(page)).to_have_text(HOSTILE)
    expect(page.get_by_role("article").locator("bdi").first).to_have_text(HOSTILE)
    expect(page.locator("main img")).to_have_count(0)
