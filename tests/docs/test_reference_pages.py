"""docs/reference and the parameters of docs/training.md are what the code would write: `make docs` after a change."""

import pytest
from support.reference_pages import FOLDER, TRAINING, pages, training_page

PAGES = pages()


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_what_the_code_would_write(name: str) -> None:
    assert (FOLDER / name).read_text() == PAGES[name]


def test_the_table_of_parameters_is_what_the_code_would_write() -> None:
    assert TRAINING.read_text() == training_page()


def test_there_is_no_other_page() -> None:
    assert {path.name for path in FOLDER.iterdir()} == set(PAGES)


def test_every_command_and_each_of_its_parts_has_its_help() -> None:
    text = PAGES["commands.md"]
    for command in ("train", "serve", "datasets preview", "models export", "token link", "completion"):
        assert f"\n## modelforge {command}\n\n```\nmodelforge {command} " in text
