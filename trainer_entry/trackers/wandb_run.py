"""A run of Weights & Biases: at its server where there is a key for it, and else in files that can be sent there."""
# mypy: allow-untyped-calls

import os
import secrets
from pathlib import Path

import wandb

from trainer_entry.trackers.kept_id import kept_id
from trainer_entry.trackers.lines import OpenRun, Outcome

_PROJECT = "modelforge"


class WandbRun:
    """A run; the attempts of a job go on with one. Its axis is the job's step, which an attempt may count again."""

    def __init__(self, opening: OpenRun, folder: Path) -> None:
        online = bool(os.environ.get("WANDB_API_KEY"))
        run_id, _ = kept_id(folder, lambda: f"{opening.job_id}-{secrets.token_hex(4)}")
        self._run = wandb.init(
            project=opening.parameters.tracker_project or os.environ.get("WANDB_PROJECT") or _PROJECT,
            entity=os.environ.get("WANDB_ENTITY") or None,
            dir=str(folder),
            id=run_id,
            resume="allow" if online else None,
            name=opening.name,
            tags=list(opening.tags),
            config=opening.config,
            mode="online" if online else "offline",
            # Of the machine, of its other files and of what is printed nothing is told.
            settings=wandb.Settings(
                console="off",
                disable_git=True,
                disable_code=True,
                x_disable_machine_info=True,
                x_disable_stats=True,
                x_save_requirements=False,
            ),
        )
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")

    def log(self, step: int, figures: dict[str, float]) -> None:
        """One row of all figures of a step."""
        self._run.log({**figures, "step": step})

    def close(self, outcome: Outcome) -> None:
        """Wait until everything is sent, or in the file."""
        self._run.finish(exit_code=1 if outcome == "failed" else 0)
        wandb.teardown()
