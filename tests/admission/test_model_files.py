"""A model's files: what stands in them, and which one is at fault."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from support.attempt_files import write_weights

from modelforge.admission.ahead import check_ahead
from modelforge.admission.estimate import tokenizer
from modelforge.admission.estimate.architecture import architecture_of
from modelforge.admission.estimate.tokenizer import check_chat_template, check_tokenizer
from modelforge.admission.estimate.weights import weights_in
from modelforge.admission.model import check_model
from modelforge.errors import BadInput

SHAPES = {"a.weight": (4, 6), "b.bias": (3,)}
TOKENIZER = {"version": "1.0", "model": {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"}}


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def cut_in_the_header(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:20])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def lengthen(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"x")


def garble(path: Path) -> None:
    path.write_bytes((9).to_bytes(8, "little") + b"not JSON!")


def claim_a_huge_header(path: Path) -> None:
    path.write_bytes((1 << 62).to_bytes(8, "little") + b"{}")


def nest(path: Path) -> None:
    text = b"[" * 100_000
    path.write_bytes(len(text).to_bytes(8, "little") + text)


WHOLE = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
"""A tensor that has all bytes of a file to itself."""


def header_of(path: Path, tensors: dict[str, object], data: int) -> None:
    text = json.dumps(tensors).encode()
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + data)


@pytest.mark.parametrize(
    "tensors",
    [
        {"a": {"dtype": "F32", "shape": [10**18, 10**18], "data_offsets": [0, 8]}},
        {"a": {"dtype": "F32", "shape": [3], "data_offsets": [0, 8]}},
        {"a": {"dtype": "F4", "shape": [10**9], "data_offsets": [0, 8]}},
        {"a": {"dtype": "F32", "shape": [1] * 1000 + [2], "data_offsets": [0, 8]}},
        {
            "a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},
            "b": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},
        },
        {"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}},
        {
            "a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},
            "b": {"dtype": "U8", "shape": [], "data_offsets": [8, 4]},
        },
    ],
)
def test_a_header_that_lies_is_refused_by_name(tmp_path: Path, tensors: dict[str, object]) -> None:
    header_of(tmp_path / "model.safetensors", tensors, 8)
    with pytest.raises(BadInput, match=r"model\.safetensors: its header lies"):
        weights_in("m", tmp_path, "model_name")


@pytest.mark.parametrize("field", ["hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size", "head_dim"])
@pytest.mark.parametrize("number", ["99999999999", "1" + "0" * 400])
def test_sizes_beyond_all_sense_are_none(field: str, number: str) -> None:
    sizes = {"hidden_size": "8", "num_hidden_layers": "2", "num_attention_heads": "2", "vocab_size": "9", field: number}
    assert (
        architecture_of(("{" + ",".join(f'"{name}": {value}' for name, value in sizes.items()) + "}").encode()) is None
    )


def test_every_weight_has_its_name_and_shape(tmp_path: Path) -> None:
    write_weights(tmp_path / "model.safetensors", SHAPES)
    assert {weight.name: weight.shape for weight in weights_in("m", tmp_path, "model_name")} == SHAPES


def test_the_library_s_own_files_are_read(tmp_path: Path) -> None:
    import numpy as np
    from safetensors.numpy import save_file

    arrays = {name: np.zeros(shape, dtype=np.float32) for name, shape in SHAPES.items()}
    save_file(arrays, tmp_path / "model.safetensors", metadata={"format": "pt", "shape": "none"})
    assert {weight.name: weight.shape for weight in weights_in("m", tmp_path, "model_name")} == SHAPES


@pytest.mark.parametrize(
    "harm", [cut, cut_in_the_header, empty, lengthen, garble, claim_a_huge_header, nest, Path.unlink]
)
def test_a_torn_file_is_refused_by_name(tmp_path: Path, harm: Callable[[Path], None]) -> None:
    write_weights(tmp_path / "one.safetensors", SHAPES)
    write_weights(tmp_path / "two.safetensors", {"c.weight": (2, 2)})
    index = {"weight_map": {"a.weight": "one.safetensors", "b.bias": "one.safetensors", "c.weight": "two.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert len(weights_in("m", tmp_path, "model_name")) == 3
    harm(tmp_path / "two.safetensors")
    with pytest.raises(BadInput, match=r"two\.safetensors") as refused:
        weights_in("m", tmp_path, "model_name")
    assert refused.value.field == "model_name"


@pytest.mark.parametrize("index", [b"{", b'{"weight_map": {"a": "../../etc/passwd"}}', b'{"weight_map": []}'])
def test_an_index_that_cannot_be_used_is_refused_by_name(tmp_path: Path, index: bytes) -> None:
    (tmp_path / "model.safetensors.index.json").write_bytes(index)
    with pytest.raises(BadInput, match=r"index\.json"):
        weights_in("m", tmp_path, "model_name")


def test_weights_under_another_name_are_not_loaded(tmp_path: Path) -> None:
    write_weights(tmp_path / "consolidated.safetensors", SHAPES)
    with pytest.raises(BadInput, match=r"no model\.safetensors"):
        weights_in("m", tmp_path, "model_name")


async def test_a_tokenizer_that_can_be_read_is_accepted_until_it_changes(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(TOKENIZER))
    await check_tokenizer("m", tmp_path, "model_name")
    await check_tokenizer("m", tmp_path, "model_name")
    path.write_text(json.dumps({**TOKENIZER, "model": {"type": "Nonsense"}}))
    with pytest.raises(BadInput, match=r"tokenizer\.json"):
        await check_tokenizer("m", tmp_path, "model_name")


async def test_a_model_that_was_looked_at_ahead_is_not_read_while_somebody_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good, bad = tmp_path / "good", tmp_path / "bad"
    for folder, text in ((good, json.dumps(TOKENIZER)), (bad, "{")):
        folder.mkdir()
        (folder / "tokenizer.json").write_text(text)
    await check_ahead([str(bad), "nobody/has-it", str(good)])
    with pytest.raises(BadInput, match=r"tokenizer\.json"):
        await check_tokenizer("m", bad, "model_name")
    monkeypatch.setattr(tokenizer, "run_module", lambda *_, **__: pytest.fail("it was read again"))
    await check_tokenizer("m", good, "model_name")


async def test_a_model_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no tokenizer"):
        await check_tokenizer("m", tmp_path, "model_name")


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("vocab.txt", "[UNK]"),
        ("vocab.json", '{"a": 0}'),
        ("tokenizer_config.json", '{"tokenizer_class": "ByT5Tokenizer"}'),
    ],
)
async def test_a_tokenizer_that_transformers_makes_is_accepted(tmp_path: Path, file: str, text: str) -> None:
    (tmp_path / file).write_text(text)
    await check_tokenizer("m", tmp_path, "model_name")


@pytest.mark.parametrize("file", ["tokenizer.model", "spiece.model", "spm.model"])
async def test_sentence_pieces_are_enough(tmp_path: Path, file: str) -> None:
    (tmp_path / file).write_bytes(b"sentences")
    await check_tokenizer("m", tmp_path, "model_name")


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("chat_template.jinja", "{{ messages }}"),
        ("tokenizer_config.json", '{"chat_template": "{{ messages }}"}'),
        ("tokenizer_config.json", '{"chat_template": [{"name": "default", "template": "{{ messages }}"}]}'),
    ],
)
def test_a_chat_template_is_found_wherever_it_stands(tmp_path: Path, file: str, text: str) -> None:
    with pytest.raises(BadInput, match="no chat template"):
        check_chat_template("m", tmp_path, "model_name")
    (tmp_path / "tokenizer_config.json").write_text('{"chat_template": null}')
    with pytest.raises(BadInput, match="no chat template"):
        check_chat_template("m", tmp_path, "model_name")
    (tmp_path / file).write_text(text)
    check_chat_template("m", tmp_path, "model_name")


def test_settings_of_a_tokenizer_that_cannot_be_read_are_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "tokenizer_config.json").write_text("{")
    with pytest.raises(BadInput, match=r"tokenizer_config\.json"):
        check_chat_template("m", tmp_path, "model_name")


@pytest.mark.parametrize("note", ["[1, 2]", "{", '"text"'])
async def test_notes_that_lie_beside_a_model_are_no_configuration(tmp_path: Path, note: str) -> None:
    (tmp_path / "config.json").write_text("{}")
    write_weights(tmp_path / "model.safetensors", SHAPES)
    (tmp_path / "data_config.json").write_text(note)
    assert await check_model(str(tmp_path), (tmp_path,)) == str(tmp_path)
    (tmp_path / "generation_config.json").write_text(note)
    with pytest.raises(BadInput, match=r"generation_config\.json"):
        await check_model(str(tmp_path), (tmp_path,))


def test_a_chat_template_that_knows_no_tools_is_refused_where_there_are_some(tmp_path: Path) -> None:
    (tmp_path / "chat_template.jinja").write_text("{{ messages }}")
    check_chat_template("m", tmp_path, "model_name")
    with pytest.raises(BadInput, match="knows no tools"):
        check_chat_template("m", tmp_path, "model_name", tools=True)
    (tmp_path / "additional_chat_templates").mkdir()
    (tmp_path / "additional_chat_templates" / "tool_use.jinja").write_text("{{ tools }}{{ messages }}")
    check_chat_template("m", tmp_path, "model_name", tools=True)
