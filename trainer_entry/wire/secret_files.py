"""How secrets are handed to a trainer: the files of its attempt that have them, and the variables that name those."""

from trainer_entry.wire.parameters import Tracker

TOKEN_FILE_VARIABLE = "HF_TOKEN_PATH"  # noqa: S105 - the variable by which the hub's own library finds its token
PROXIES_VARIABLE = "MODELFORGE_PROXIES"
"""Names a file of variables, as JSON: the addresses of proxies that have a password in them."""
TRACKERS_VARIABLE = "MODELFORGE_TRACKERS"
"""Names a file of variables by the tracker that they are for, as JSON: where it reports, and its key."""
SECRET_FILES = ("hub-token", "proxies.json", "trackers.json")
"""Those files, in the same order; they go when the attempt ends."""
TRACKER_VARIABLES: dict[Tracker, tuple[str, ...]] = {
    "tensorboard": (),
    "wandb": ("WANDB_API_KEY", "WANDB_BASE_URL", "WANDB_PROJECT", "WANDB_ENTITY"),
    "mlflow": (
        *("MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN"),
        "MLFLOW_EXPERIMENT_NAME",
    ),
    "trackio": (),
}
"""What of the server's environment a tracker is given."""
TRACKER_SECRETS = ("WANDB_API_KEY", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN")
"""Those of them that go into no text."""
