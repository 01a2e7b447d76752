"""The ids of OpenAI's surface, and what they stand for here."""

import hashlib
from collections.abc import Mapping
from datetime import datetime
from functools import lru_cache

from modelforge.projections.datasets import DatasetSummary
from modelforge.projections.listed import ListedModel
from modelforge.projections.models import ModelDetails

_FILE = "file-"
_KNOWN_FILES = 1 << 16
"""A file is looked for among all of them: so many are hashed once."""
_JOB = "ftjob-"
_OWN_JOB = "train_"
_MODEL = "ft:"


@lru_cache(_KNOWN_FILES)
def file_id(filename: str, revision: int | None) -> str:
    """The id of a dataset's revision: another content under the same name has another one."""
    return _FILE + hashlib.sha256(f"{filename}\n{revision}".encode()).hexdigest()[:24]


def dataset_of(datasets: Mapping[str, DatasetSummary], wanted: str) -> DatasetSummary | None:
    """The dataset whose file has an id; none where its name stands for another content by now."""
    return next((one for one in datasets.values() if file_id(one.filename, one.revision) == wanted), None)


def fine_tuning_job_id(job_id: str) -> str:
    """The id of a job on this surface: the number is the same."""
    return _JOB + job_id.removeprefix(_OWN_JOB)


def job_of(wanted: str) -> str:
    """The job that an id stands for, whether there is one or not."""
    return _OWN_JOB + wanted.removeprefix(_JOB) if wanted.startswith(_JOB) else wanted[:100] or _OWN_JOB


def model_name(number: int, model: ModelDetails | ListedModel) -> str:
    """The id of a trained model: what it was trained from, its name and its number."""
    return f"{_MODEL}{model.base_model}:{model.name}:{number}"


def model_of(models: Mapping[int, ModelDetails], wanted: str) -> ModelDetails | None:
    """The trained model that an id stands for."""
    number = wanted.rpartition(":")[2]
    if not wanted.startswith(_MODEL) or not number.isascii() or not number.isdigit() or len(number) > _MOST_DIGITS:
        return None
    details = models.get(int(number))
    return details if details is not None and model_name(details.id, details) == wanted else None


_MOST_DIGITS = 15


def unix_seconds(moment: str) -> int:
    """A moment as ISO 8601 in Unix seconds."""
    return int(datetime.fromisoformat(moment).timestamp())
