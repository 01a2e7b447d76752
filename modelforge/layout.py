"""Where things lie in a data directory.

DATA/lock                      who serves it now
DATA/owner.key                 what the owner's command line shows the server; another one each start
DATA/events.sqlite             the event log
DATA/log-segments/             what was archived of it; made when there is something
DATA/snapshot.sqlite           shortens a start; made of the log anew where it is missing
DATA/datasets/<sha256>.jsonl   the records that trainers read, by their content; most uploads are such a file
DATA/datasets/<sha256>.upload  uploads that records were made from, as they came
DATA/jobs/<job>/attempt-<n>/   spec.json, stdout.jsonl (the spool), stderr.log, shim.json, exit.json
DATA/jobs/<job>/checkpoints/   checkpoint-<step>
DATA/models/<job>/             the trained model of a job
DATA/exports/<job>[.tar|.zip]  exported models, unless they were sent elsewhere; made when there is one
DATA/standby/<token>/          stdout.jsonl and stderr.log of a trainer that stands by, until it has an attempt
DATA/tokenized/<key>/          tokenized records, kept for later attempts; may be removed at any time
DATA/webhooks/<id>.json         the secrets that sign what an endpoint is sent; in no backup
DATA/tmp, DATA/trash           uploads under way, files being removed; swept at each start

On a cluster datasets, jobs, models, tokenized, tmp and trash lie in a folder that every node sees at the same path, and
DATA has links to them.
"""

from pathlib import Path

from msgspec import Struct


def segments_of(log: Path) -> Path:
    """The folder with what was archived of a log."""
    return log.with_name("log-segments")


class Layout(Struct, frozen=True):
    """The paths in one data directory. `shared`: where what the nodes of a cluster read and write lies instead."""

    root: Path
    shared: Path | None = None

    @property
    def on_nodes(self) -> tuple[Path, ...]:
        """The folders that lie there."""
        return (self.jobs, self.models, self.datasets, self.tokenized, self.temporary, self.trash)

    @property
    def lock(self) -> Path:
        """Held by the server that has the directory."""
        return self.root / "lock"

    @property
    def owner_key(self) -> Path:
        """The key of whoever may read this directory, for as long as a server runs."""
        return self.root / "owner.key"

    @property
    def log(self) -> Path:
        """The event log."""
        return self.root / "events.sqlite"

    @property
    def segments(self) -> Path:
        """What was archived of the event log: a file for each range of positions."""
        return segments_of(self.log)

    @property
    def snapshot(self) -> Path:
        """What the log leads to, so that a start does not read all of it."""
        return self.root / "snapshot.sqlite"

    @property
    def jobs(self) -> Path:
        """A folder a job."""
        return self.at_nodes() / "jobs"

    @property
    def models(self) -> Path:
        """A folder a trained model."""
        return self.at_nodes() / "models"

    @property
    def exports(self) -> Path:
        """A folder or archive an exported model."""
        return self.root / "exports"

    @property
    def datasets(self) -> Path:
        """The files of datasets, by their content."""
        return self.at_nodes() / "datasets"

    @property
    def webhooks(self) -> Path:
        """The secrets of webhook endpoints; made when there is one."""
        return self.root / "webhooks"

    @property
    def standby(self) -> Path:
        """A folder a trainer that stands by; made when there is one."""
        return self.root / "standby"

    @property
    def tokenized(self) -> Path:
        """A folder for each dataset as a model reads it; made by the first trainer."""
        return self.at_nodes() / "tokenized"

    @property
    def temporary(self) -> Path:
        """Files that are not whole yet."""
        return self.at_nodes() / "tmp"

    @property
    def trash(self) -> Path:
        """Files on their way out."""
        return self.at_nodes() / "trash"

    def dataset(self, sha256: str) -> Path:
        """The records (JSON lines) with this content."""
        return self.datasets / f"{sha256}.jsonl"

    def upload(self, sha256: str) -> Path:
        """The upload with this content, where it is not itself what trainers read."""
        return self.datasets / f"{sha256}.upload"

    def at_nodes(self) -> Path:
        """Where jobs, datasets and models lie, and what is moved into or out of them."""
        return self.shared or self.root

    def attempt(self, job_id: str, attempt: int) -> Path:
        """The folder of one attempt."""
        return self.jobs / job_id / f"attempt-{attempt}"

    def checkpoints(self, job_id: str) -> Path:
        """The folder of a job's checkpoints, shared by its attempts."""
        return self.jobs / job_id / "checkpoints"

    def make_folders(self) -> None:
        """Make what is missing; what lies here is for its owner only."""
        folders = (self.jobs, self.models, self.datasets, self.temporary, self.trash) if self.shared is None else ()
        for folder in (self.root, *folders):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
