"""Exports as GGUF in the process of a test, without a server around them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec import Struct

from support.trainer_attempts import job_of
from trainer_entry import wire
from trainer_entry.artifacts.export import export
from trainer_entry.runtime.progress import Progress

if TYPE_CHECKING:
    from pathlib import Path


class Counted(Progress):
    """A progress that nobody is told of. `total`: what there was to do."""

    def __init__(self) -> None:
        self.step = 0
        self.total = 0
        self.phases: list[str] = []

    def stay_alive(self) -> None:
        pass

    def enter(self, phase: wire.Phase) -> None:
        self.phases.append(phase)

    def begin(self, total: int, unit: wire.Unit, environment: wire.Environment) -> None:
        assert unit == "bytes"
        assert environment.versions["gguf"]
        self.total = total

    def advance(self, count: int) -> None:
        assert count >= 0
        self.step += count

    def commit(self) -> None:
        self.phases.append("commit")


class Done(Struct):
    """What came of an export: the GGUF file, the Modelfile's text, and what was said."""

    file: Path
    modelfile: str
    delivery: wire.Exported
    progress: Counted


def export_gguf(
    model: Path, place: Path, quantization: wire.Quantization = "f32", *, base: Path | None = None, **options: Any
) -> Done:
    """Export the model in a folder; `base`: of an adapter, the model that it was trained on."""
    work = wire.Export(
        model_id=1, name="cook", path=str(model), format="gguf", to=str(place), root=str(place.parent),
        quantization=quantization, merges=base is not None, **options,
    )  # fmt: skip
    job = job_of(wire.TrainingParameters(), model_path=str(base or model), output_dir=str(place), work=work)
    progress = Counted()
    spec = wire.AttemptSpec(job=job, attempt=1, token="t", cpu_threads=1)  # noqa: S106 - no secret
    delivery = export(spec, work, progress)
    return Done(place / f"cook-{quantization}.gguf", (place / "Modelfile").read_text(), delivery, progress)
