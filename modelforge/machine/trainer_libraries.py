"""The libraries of the trainers, which a server can be installed without."""

import importlib.util

from modelforge.errors import TrainersMissing

_LIBRARIES = ("torch", "transformers", "accelerate", "datasets", "peft", "trl")


def check_trainer_libraries() -> None:
    """Refuse what only a trainer, the playground or a tokenizer can do, where their libraries are not installed.

    Raises:
        TrainersMissing: it names them, and says how to install them.
    """
    missing = [name for name in _LIBRARIES if importlib.util.find_spec(name) is None]
    if missing:
        raise TrainersMissing(
            "The trainers' libraries are not installed",
            f"Missing: {', '.join(missing)}. Install them beside the server: pip install 'modelforge[trainers]' "
            "(pipx install --force 'modelforge[trainers]', uv tool install 'modelforge[trainers]').",
        )
