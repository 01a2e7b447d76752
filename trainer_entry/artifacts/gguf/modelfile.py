"""The `Modelfile` beside a GGUF file: what `ollama create` reads (https://docs.ollama.com/modelfile)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

if TYPE_CHECKING:
    from transformers import GenerationConfig

_SAMPLING = {"temperature": "temperature", "top_p": "top_p", "top_k": "top_k", "min_p": "min_p"}
_ALWAYS = {"repetition_penalty": "repeat_penalty"}
_QUOTES = '"""'


class Modelfile(Struct, frozen=True, kw_only=True):
    """What it says. `template`: None where Ollama is to choose one by itself; `warnings` stand in it as comments."""

    name: str
    file: str
    template: str | None
    stops: tuple[str, ...] = ()
    parameters: tuple[tuple[str, float], ...] = ()
    warnings: tuple[str, ...] = ()

    def text(self) -> str:
        """The file's content."""
        lines = [f"# {self.name}, for Ollama: ollama create {self.name.lower()} -f Modelfile"]
        lines += [f"# {' '.join(warning.split())}" for warning in self.warnings]
        lines.append(f"FROM ./{self.file}")
        if self.template is not None:
            ended = f'{self.template}{{{{ "" }}}}' if self.template.endswith('"') else self.template
            lines.append(f"TEMPLATE {_QUOTES}{ended}{_QUOTES}")
        # One with three quotes would end where its reader takes it to, and go on as other commands.
        lines += [
            f"PARAMETER stop {_quoted(stop)}" for stop in self.stops if _QUOTES not in stop and stop.isprintable()
        ]
        lines += [f"PARAMETER {name} {value:g}" for name, value in self.parameters]
        return "\n".join([*lines, ""])


def _quoted(text: str) -> str:
    return f"{_QUOTES}{text}{_QUOTES}" if '"' in text else f'"{text}"'


def sampling_parameters(generation: GenerationConfig | None) -> tuple[tuple[str, float], ...]:
    """What Ollama calls the settings that a model is to be asked with, of those that are set.

    Without `do_sample` those of sampling mean nothing, and the likeliest token is taken: a temperature of 0.
    """
    if generation is None:
        return ()
    names = _SAMPLING | _ALWAYS if generation.do_sample else _ALWAYS
    values = ((ours, getattr(generation, theirs, None)) for theirs, ours in names.items())
    found = tuple((name, float(value)) for name, value in values if value is not None)
    return (("temperature", 0.0), *found) if generation.do_sample is False else found
