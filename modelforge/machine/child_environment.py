"""What a child process may know of the server's environment."""

import os

from trainer_entry.wire.redaction import without_credentials

_PASSED = frozenset(
    {"PATH", "HOME", "USER", "LANG", "TZ", "TMPDIR", "LD_LIBRARY_PATH", "PYTHONPATH", "VIRTUAL_ENV"}
    | {"http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"}
    | {"SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"}
)
_PASSED_PREFIXES = (
    *("LC_", "XDG_", "CUDA_", "NVIDIA_", "NCCL_", "GLOO_", "HF_", "TRANSFORMERS_", "TORCH_", "PYTORCH_"),
    *("TRITON_", "OMP_", "GOMP_", "MKL_", "OPENBLAS_", "PIP_", "BNB_"),
)


_SECRET_WORDS = ("TOKEN", "SECRET", "PASSWORD", "PASSWD", "CREDENTIAL", "_KEY", "AUTH")
_NO_SECRETS = frozenset({"TOKENIZERS_PARALLELISM"})


def is_secret(name: str) -> bool:
    """Whether a variable of this name has a secret in it."""
    return name not in _NO_SECRETS and any(word in name.upper() for word in _SECRET_WORDS)


def child_environment(**added: str) -> dict[str, str]:
    """The variables on a short list, and `added`; everything else, secrets included, stays with the server.

    Addresses are passed on without the name and password that may stand in them.
    """
    passed = {
        name: without_credentials(value) if "://" in value or name.lower().endswith("_proxy") else value
        for name, value in os.environ.items()
        if (name in _PASSED or name.startswith(_PASSED_PREFIXES)) and not is_secret(name)
    }
    return {
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "DO_NOT_TRACK": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "PYTHONUNBUFFERED": "1",
        # Or a file in the current directory that is called like a module would be run in its place.
        "PYTHONSAFEPATH": "1",
        # Threads that spin while they wait make two computations at once many times slower.
        "GOMP_SPINCOUNT": "10000",
        # Nobody finds a token of the hub by themselves: who needs it is given a file that has it.
        "HF_TOKEN_PATH": os.devnull,
        **passed,
        **added,
    }
