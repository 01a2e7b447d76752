"""Whether the Hugging Face hub can be asked: its own client takes most of a minute to find out that it cannot."""

import http.client
import urllib.error
import urllib.request

_SECONDS = 5.0


def is_reachable() -> bool:
    """Whether the hub answers, and asking it is allowed."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return False
    request = urllib.request.Request(constants.ENDPOINT, method="HEAD")  # noqa: S310 - the client's own endpoint
    try:
        with urllib.request.urlopen(request, timeout=_SECONDS):  # noqa: S310 - the same
            return True
    except urllib.error.HTTPError:
        return True  # it answered
    except (OSError, http.client.HTTPException):
        return False
