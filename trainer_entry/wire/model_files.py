"""The files of a model's folder: how long each may be, so that neither side reads a stranger's without an end."""

_MEBIBYTE = 1 << 20
LONGEST_HEADER = 16 * _MEBIBYTE
"""Of a safetensors file: the names and shapes of a hundred thousand tensors."""
_WEIGHTS = (".safetensors", ".gguf")
_BY_ENDING = (
    (".index.json", 32 * _MEBIBYTE),
    ("tokenizer_config.json", 8 * _MEBIBYTE),  # with the tokens that were added
    ("config.json", 4 * _MEBIBYTE),
    (".jinja", _MEBIBYTE),
    ("chat_template.json", _MEBIBYTE),
)
_ENDINGS = (".json", ".txt", ".model", ".tiktoken", ".codes", ".spm", ".vocab")
_VOCABULARY = 256 * _MEBIBYTE
TEMPLATES = "additional_chat_templates"
"""The one folder within a model's that is read."""


def most_bytes(name: str) -> int | None:
    """How long a model's file of this name may be; None: it holds weights, or nothing that is read."""
    if name.endswith(_WEIGHTS):
        return None
    for ending, most in _BY_ENDING:
        if name.endswith(ending):
            return most
    return _VOCABULARY if name.endswith(_ENDINGS) else None


def boundary_of(folder: str) -> str:
    """The folder that no link of a model's may leave: its own, or, in the hub's cache, that of its repository.

    There the files of `models--OWNER--NAME/snapshots/COMMIT` are links to `../../blobs`.
    """
    repository, _, commit = folder.rpartition("/snapshots/")
    is_cached = commit and "/" not in commit and repository.rpartition("/")[2].startswith("models--")
    return repository if is_cached else folder
