"""The server's settings: one frozen Struct. Defaults < `modelforge.toml` < `MODELFORGE_*` < flags."""

import ipaddress
import os
import shlex
import shutil
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from modelforge.errors import SettingsInvalid
from modelforge.server_log import LogFormat
from trainer_entry.wire import ClusterRequest
from trainer_entry.wire.cluster import ClusterName, Constraint, Memory, TimeLimit

FILENAME = "modelforge.toml"
_PREFIX = "MODELFORGE_"
_NO_SETTINGS = frozenset({"MODELFORGE_URL", "MODELFORGE_TOKEN", "MODELFORGE_API_TOKEN"})
"""Variables of ours that say nothing to the server: they are the client's, and the trainers'."""


def data_home() -> Path:
    """Where data lies by default."""
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "modelforge"


def default_roots() -> tuple[Path, ...]:
    """Where datasets and models may be read from by path: the home directory, and the working directory."""
    return (Path.home(), Path.cwd())


_CLUSTER_SETTINGS = tuple(f"cluster_{name}" for name in ClusterRequest.__struct_fields__)
Seconds = Annotated[float, Meta(gt=0, le=86_400)]
"""At most a day: no setting is infinite, since JSON has no word for it."""
Origin = Annotated[str, Meta(pattern=r"^https?://(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(:[0-9]{1,5})?$(?!\n)")]
"""Where a page comes from, as a browser says it: a scheme, a host, a port where it is not the usual one; no path."""


class Settings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything that can be set. Paths are absolute and resolved; sizes in bytes, times in seconds.

    `reward_roots`: folders whose Python files may be run by a trainer, as reward functions; none by itself.
    `allowed_hosts`: names, beside loopback's, that a Host header may have. `allowed_origins`: where pages of one's own
    come from that may ask this server, and read its answers. `behind_proxy`: a proxy on the way has TLS,
    and says who the client is (X-Forwarded-For). `llama_quantize`: that program of
    llama.cpp, where it is not on the PATH. `on_end`: a command that is run, without a shell, when a job ends.
    `launcher`: who runs trainings and evaluations; with `slurm`, jobs, datasets and models lie in `shared_root`, which
    all nodes see at the same path, and `cluster_…` is what a job asks for that does not say so itself.
    `cold`: no trainer is started ahead of its job, and no worker of the playground ahead of a prompt.
    `max_concurrent_jobs` share the processors; each has GPUs of its own, where there are any. A client is a token, or
    where none is asked for, an address.
    """

    host: str = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65_535)] = 8000
    data_dir: Path = msgspec.field(default_factory=data_home)
    dataset_roots: tuple[Path, ...] = msgspec.field(default_factory=default_roots)
    model_roots: tuple[Path, ...] = msgspec.field(default_factory=default_roots)
    reward_roots: tuple[Path, ...] = ()
    unix_socket: Path | None = None
    require_token: bool = False
    isolate: bool = False
    cold: bool = False
    launcher: Literal["local", "slurm"] = "local"
    shared_root: Path | None = None
    cluster_partition: ClusterName | None = None
    cluster_account: ClusterName | None = None
    cluster_qos: ClusterName | None = None
    cluster_time_limit: TimeLimit | None = None
    cluster_nodes: Annotated[int, Meta(ge=1, le=1024)] | None = None
    cluster_gpus_per_node: Annotated[int, Meta(ge=0, le=64)] | None = None
    cluster_cpus_per_node: Annotated[int, Meta(ge=1, le=1024)] | None = None
    cluster_memory: Memory | None = None
    cluster_constraint: Constraint | None = None
    behind_proxy: bool = False
    tls_cert: Path | None = None
    tls_key: Path | None = None
    llama_quantize: Path | None = None
    on_end: str | None = None
    log_format: LogFormat = "auto"
    allowed_hosts: tuple[str, ...] = ()
    allowed_origins: tuple[Origin, ...] = ()
    max_concurrent_jobs: Annotated[int, Meta(ge=1, le=64)] = 1
    max_upload_bytes: Annotated[int, Meta(ge=1)] = 20_000_000_000
    reserve_disk_bytes: Annotated[int, Meta(ge=0)] = 2_000_000_000
    max_body_bytes: Annotated[int, Meta(ge=1024)] = 1_000_000
    stop_grace_seconds: Seconds = 120.0
    stalled_seconds: Seconds = 60.0
    playground_idle_seconds: Seconds = 300.0
    playground_deadline_seconds: Seconds = 120.0
    head_seconds: Seconds = 20.0
    keepalive_seconds: Seconds = 60.0
    still_seconds: Seconds = 60.0
    request_seconds: Seconds = 21_600.0
    max_connections: Annotated[int, Meta(ge=16, le=65_536)] = 4096
    max_connections_per_client: Annotated[int, Meta(ge=8, le=65_536)] = 1024
    max_sockets_per_client: Annotated[int, Meta(ge=1, le=65_536)] = 256
    max_uploads: Annotated[int, Meta(ge=1, le=1024)] = 8
    max_requests_per_minute: Annotated[int, Meta(ge=1)] = 6000

    @property
    def is_local(self) -> bool:
        """Whether only this machine's own users can reach the server."""
        return self.unix_socket is not None or is_loopback(self.host)

    @property
    def is_reached_by_others(self) -> bool:
        """Whether users of other machines reach it, be it through a proxy of this one."""
        return self.behind_proxy or not self.is_local

    @property
    def cluster(self) -> ClusterRequest:
        """What jobs ask of the cluster that do not say so themselves."""
        return ClusterRequest(**{name: getattr(self, f"cluster_{name}") for name in ClusterRequest.__struct_fields__})

    @property
    def has_tls(self) -> bool:
        """Whether the server itself encrypts."""
        return self.tls_cert is not None


def load_settings(
    flags: Mapping[str, object], environ: Mapping[str, str] = os.environ, folder: Path | None = None
) -> Settings:
    """The settings in effect; `flags` holds only those that were given.

    Raises:
        SettingsInvalid: a file, variable or flag has an unknown name or an unusable value.
    """
    path = (folder or Path.cwd()) / FILENAME
    layers: list[tuple[str, Mapping[str, object]]] = []
    if path.is_file():
        try:
            layers.append((str(path), tomllib.loads(path.read_text())))
        except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise SettingsInvalid("A settings file cannot be read", f"{path}: {error}") from error
    layers.extend((("the environment", _from_environment(environ)), ("the command line", flags)))
    merged: dict[str, object] = {}
    for source, layer in layers:
        _convert(source, layer)
        merged.update(layer)
    try:
        settings = _resolved(_convert("the settings", merged))
    except (OSError, ValueError, RuntimeError) as error:  # what pathlib says of a path that is none
        raise SettingsInvalid("A path in the settings cannot be used", str(error)) from error
    if (settings.tls_cert is None) != (settings.tls_key is None):
        raise SettingsInvalid("TLS needs both its files", "Give --tls-cert and --tls-key together.")
    check_command(settings.on_end)
    _check_launcher(settings)
    if not settings.is_local and not settings.has_tls and not settings.behind_proxy:
        raise SettingsInvalid(
            "This address would open the server to others, and everything said could be read on the way",
            f"--host {settings.host}: give --tls-cert and --tls-key, or --behind-proxy where a proxy has TLS. "
            "A token is needed too (modelforge token create).",
        )
    return settings


def _check_launcher(settings: Settings) -> None:
    """Refuse what a launcher cannot have, or has no use for."""
    if settings.launcher == "slurm":
        if settings.shared_root is None:
            raise SettingsInvalid(
                "Slurm needs a folder that all nodes see",
                "Give --shared-root with --launcher slurm: a folder of a shared file system, at the same path on "
                "every node. Jobs, datasets and models lie there.",
            )
        if settings.isolate:
            raise SettingsInvalid(
                "Jobs of a cluster cannot be isolated",
                "Leave out --isolate with --launcher slurm: nodes have no bwrap.",
            )
        return
    given = [name for name in ("shared_root", *_CLUSTER_SETTINGS) if getattr(settings, name) is not None]
    if given:
        flags = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        raise SettingsInvalid(
            "Settings of a cluster need one", f"Give --launcher slurm with {flags}, or leave them out."
        )


def check_command(command: str | None, name: str = "on_end") -> None:
    """Refuse a command that could not be run once it is time; `name`: what it is given by.

    Raises:
        SettingsInvalid: its quotes do not fit, or there is no such program.
    """
    if command is None:
        return
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise SettingsInvalid(f"The command {name} cannot be read", f"{command[:100]!r}: {error}.") from error
    if not words or shutil.which(words[0]) is None:
        remedy = "give a program on the PATH and its arguments; `sh -c '…'` for what a shell does."
        raise SettingsInvalid(f"The command {name} is not there", f"{command[:100]!r}: {remedy}")


def is_loopback(host: str) -> bool:
    """Whether an address to listen on is one that only this machine reaches."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _from_environment(environ: Mapping[str, str]) -> dict[str, object]:
    """The settings among the variables; an empty one sets nothing."""
    values: dict[str, object] = {}
    for variable, text in environ.items():
        if not variable.startswith(_PREFIX) or variable in _NO_SETTINGS or not text:
            continue
        name = variable.removeprefix(_PREFIX).lower()
        match name:
            case "dataset_roots" | "model_roots" | "reward_roots":
                values[name] = text.split(os.pathsep)
            case "allowed_hosts" | "allowed_origins":
                values[name] = [one.strip() for one in text.split(",")]
            case _:
                values[name] = text
    return values


def _convert(source: str, values: Mapping[str, object]) -> Settings:
    try:
        return msgspec.convert(values, Settings, strict=False, dec_hook=_path)
    except msgspec.ValidationError as error:
        raise SettingsInvalid("A setting cannot be used", f"In {source}: {error}") from error


def _path(kind: type, value: object) -> object:
    if kind is Path and isinstance(value, str | Path):
        return Path(value).expanduser()
    raise NotImplementedError(kind)


def _resolved(settings: Settings) -> Settings:
    return msgspec.structs.replace(
        settings,
        data_dir=settings.data_dir.resolve(),
        dataset_roots=tuple(root.resolve() for root in settings.dataset_roots),
        model_roots=tuple(root.resolve() for root in settings.model_roots),
        reward_roots=tuple(root.resolve() for root in settings.reward_roots),
        shared_root=None if settings.shared_root is None else settings.shared_root.resolve(),
        unix_socket=None if settings.unix_socket is None else settings.unix_socket.absolute(),
        tls_cert=None if settings.tls_cert is None else settings.tls_cert.resolve(),
        tls_key=None if settings.tls_key is None else settings.tls_key.resolve(),
        llama_quantize=None if settings.llama_quantize is None else settings.llama_quantize.absolute(),
    )
