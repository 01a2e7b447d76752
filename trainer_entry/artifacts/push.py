"""Uploads a model to the Hugging Face hub, in one commit; the hub's own client does it, with the server's token."""

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

from trainer_entry.artifacts.export import ModelFile, files_of
from trainer_entry.providers.builtin_model import HUB_ID
from trainer_entry.runtime.failures import HubRefused
from trainer_entry.runtime.progress import Progress, describe
from trainer_entry.wire import BUILT_IN_MODEL, Push, Pushed

_CARD = "README.md"
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?", re.ASCII)


def push(work: Push, progress: Progress) -> Pushed:
    """Make the repository if it is not there, upload file by file, and commit them all at once.

    Raises:
        ModelUnavailable: the model is not there.
        HubRefused: the hub did not take it, or could not be reached; the message has the remedy.
    """
    os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
    from huggingface_hub import CommitOperationAdd, HfApi

    files = files_of(Path(work.path))
    size = sum(file.size for file in files)
    progress.enter("pushing")
    progress.begin(size, "bytes", describe("huggingface_hub"))
    api = HfApi(library_name="modelforge")
    with hub_errors(work.repo_id, api.endpoint):
        repository = api.create_repo(work.repo_id, private=work.private, exist_ok=True)
        repo_id = repository.repo_id
        is_private = bool(api.repo_info(repo_id).private)
        if work.private and not is_private:
            raise HubRefused(
                f'{repo_id} is there, and everybody can read it: send "private": false, or push to another repo_id.'
            )
        additions = []
        for file in files:
            content = _content(file)
            addition = CommitOperationAdd(path_in_repo=file.name, path_or_fileobj=content or file.path)
            api.preupload_lfs_files(repo_id, [addition], free_memory=False)
            additions.append(addition)
            progress.advance(file.size)
        progress.commit()
        commit = api.create_commit(repo_id, additions, commit_message=f"Upload {work.name} from ModelForge")
    return Pushed(
        url=str(repository),
        repo_id=repo_id,
        commit=commit.oid,
        private=is_private,
        files=len(files),
        size_bytes=size,
    )


def _content(file: ModelFile) -> bytes | None:
    """What stands in for a file on the hub, if it is not uploaded as it is."""
    return hub_card(file.path.read_text(encoding="utf-8")).encode() if file.name == _CARD else None


def hub_card(card: str) -> str:
    """A model card without what the hub refuses, and nobody there could follow: paths and names of local files."""
    if not card.startswith("---\n"):
        return card
    head, mark, text = card.removeprefix("---\n").partition("\n---\n")
    kept: list[str] = []
    in_datasets = False
    for line in head.splitlines():
        in_datasets = line == "datasets:" or (in_datasets and line.startswith("- "))
        name = line.removeprefix("base_model: ").strip('"')
        if name == BUILT_IN_MODEL:
            kept.append(f'base_model: "{HUB_ID}"')
        elif not in_datasets and (name == line or _REPOSITORY.fullmatch(name)):
            kept.append(line)
    return "\n".join(["---", *kept]) + mark + text


@contextlib.contextmanager
def hub_errors(repo_id: str, endpoint: str) -> Iterator[None]:
    """Raise what the hub says in the block as `HubRefused`, with what would work."""
    try:
        yield
    except HubRefused:
        raise
    except Exception as error:
        refusal = _refusal(error, repo_id, endpoint)
        if refusal is None:
            raise
        raise HubRefused(refusal) from error


def _refusal(error: BaseException | None, repo_id: str, endpoint: str) -> str | None:
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    while error is not None:
        if isinstance(error, HfHubHTTPError):
            status = error.response.status_code
            said = f" ({error.server_message})" if error.server_message else ""
            return f"The hub at {endpoint} answered {status}{said} to {repo_id}. {_remedy(status)}"
        # Its client's own HTTP library, which is another one from release to release.
        if isinstance(error, OfflineModeIsEnabled) or type(error).__module__.startswith("httpx"):
            return f"The hub at {endpoint} cannot be reached: {error}. Resume the job once it can."
        error = error.__cause__ or error.__context__
    return None


def _remedy(status: int) -> str:
    match status:
        case 401:
            return "Start the server with HF_TOKEN set to a token that is valid there, and resume the job."
        case 403:
            return "Its token may not write there: start the server with an HF_TOKEN that may, or push elsewhere."
        case 404:
            return "There is no such owner or repository, or the token may not read it: check the repo_id."
        case _:
            return "Resume the job to try again."
