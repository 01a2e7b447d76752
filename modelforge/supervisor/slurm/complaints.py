"""What the words of a command of Slurm's that failed mean: nobody answered, no, or not now."""

import re

_UNREACHABLE = (
    "Unable to contact slurm controller",
    "Connection refused",
    "Socket timed out",
    "Connection timed out",
    "Zero Bytes were transmitted or received",
    "Slurm backup controller in standby mode",
    "Communication connection failure",
    "Communication shutdown failure",
    "Unexpected message received",
    "Message receive failure",
    "Message send failure",
    "Controller is in standby mode",
    "Failed to connect to authentication agent",
    "Could not establish a configuration source",
    "Connection reset by peer",
    "Broken pipe",
    "Transport endpoint is not connected",
    "No route to host",
    "Network is unreachable",
    "Resource temporarily unavailable",
)
_REFUSED = re.compile(
    r"\binvalid\b(?! (?:authentication|job) credential)|not valid|not available|denied|violates|not permitted|exceed|"
    r"not allowed|can ?not be satisfied|failed to validate|duplicate|specification|unrecognized option|"
    r"does not look like",
    re.IGNORECASE,
)
_NOT_NOW = re.compile(
    r"Required (?:partition|node) not available|Partition in DOWN state|submissions disabled|"
    r"violates accounting/QOS policy|breached requested QOS usage threshold|Requested nodes are busy|"
    r"Unable to create job record, try again|temporarily unable to accept job|Job creation temporarily disabled|"
    r"job queue full|^ Resource temporarily unavailable",
    re.IGNORECASE,
)
_LIMIT = re.compile(r"\b(?:Assoc|QOS)[A-Z]\w+")
"""A limit of an account or a quality of service by its name, which sbatch says beside its complaint."""
_SUBMIT_LIMIT = "Submit"
"""In the name of one that others keep a job from, and not what it asks for itself."""
_SLEEPS = re.compile(
    r"(?:temporarily unable to accept job, sleeping|job queue full, sleeping|Job creation temporarily disabled),? "
    r"(?:and )?retrying"
)
_ANSWER = "Batch job submission failed:"
_SAYS = "sbatch: error: "


def is_of_nobody(words: str) -> bool:
    """Whether no controller answered."""
    return any(one in words for one in _UNREACHABLE)


def is_a_no(words: str) -> bool:
    """Whether sbatch says that the controller does not take such a job, or that it did not ask."""
    return _REFUSED.search(words) is not None


def is_not_now(words: str) -> bool:
    """Whether sbatch says that the controller takes no such job for now: it may once others have left."""
    limits = _LIMIT.findall(words)
    if limits and not any(_SUBMIT_LIMIT in limit for limit in limits):
        return False
    return _NOT_NOW.search(words.rpartition(_ANSWER)[2]) is not None


def sleeps(words: str) -> bool:
    """Whether sbatch is not taken for now, and means to try again by itself: for two minutes, without a word."""
    return _SLEEPS.search(words) is not None


def plain(words: str) -> str:
    """What sbatch complains of, without who says that something was said."""
    said = words.partition(_SAYS)[2] or words
    return " ".join(said.replace(_SAYS, "").replace(_ANSWER, "").split())
