"""For trainers of the release before this one, which import it from here when their training begins; then it goes."""

from trainer_entry.runtime.environment import describe

__all__ = ["describe"]
