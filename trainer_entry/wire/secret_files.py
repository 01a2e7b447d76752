"""How secrets are handed to a trainer: the files of its attempt that have them, and the variables that name those."""

TOKEN_FILE_VARIABLE = "HF_TOKEN_PATH"  # noqa: S105 - the variable by which the hub's own library finds its token
PROXIES_VARIABLE = "MODELFORGE_PROXIES"
"""Names a file of variables, as JSON: the addresses of proxies that have a password in them."""
SECRET_FILES = ("hub-token", "proxies.json")
"""Those files, in the same order; they go when the attempt ends."""
