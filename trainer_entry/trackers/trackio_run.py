"""A run of trackio, in files of the job's own: TRACKIO_DIR names their folder before this is imported."""
# mypy: allow-untyped-calls

import trackio

from trainer_entry.trackers.lines import OpenRun, Outcome

_PROJECT = "modelforge"


class TrackioRun:
    """A run; the attempts of a job go on with the one of its name."""

    def __init__(self, opening: OpenRun) -> None:
        self._run = trackio.init(
            project=opening.parameters.tracker_project or _PROJECT,
            name=opening.name,
            config=opening.config,
            resume="allow",
            embed=False,
            # Of the machine nothing is told but what the job's own figures say.
            auto_log_gpu=False,
            auto_log_cpu=False,
        )

    def log(self, step: int, figures: dict[str, float]) -> None:
        """All figures of a step."""
        self._run.log(dict(figures), step=step)

    def close(self, _outcome: Outcome) -> None:
        """Wait until everything is written; it has no word for how it ended."""
        self._run.finish()
