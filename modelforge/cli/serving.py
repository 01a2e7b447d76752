"""`modelforge serve`, with a flag for every setting."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Group, Parameter

from modelforge.server_log import LogFormat
from modelforge.settings import load_settings

_REACHED = Group("Who reaches it", sort_key=1)
_FOLDERS = Group("What lies where", sort_key=2)
_WORK = Group("Trainings and models", sort_key=3)
_CLUSTER = Group("A cluster", sort_key=4)
_LIMITS = Group("Limits (bytes, seconds)", sort_key=5)


@dataclass(frozen=True, kw_only=True)
class Flags:
    """The settings, each None unless it was given: then a variable, `modelforge.toml` or the default has it."""

    host: Annotated[str | None, Parameter(group=_REACHED, help="the address to listen on (127.0.0.1)")] = None
    port: Annotated[int | None, Parameter(group=_REACHED, help="the port (8000); 0: a free one, which is said")] = None
    unix_socket: Annotated[
        Path | None, Parameter(group=_REACHED, help="listen on a socket that only you can use, and on no address")
    ] = None
    allowed_hosts: Annotated[
        list[str] | None,
        Parameter(name="--allowed-host", group=_REACHED, help="another name that it is reached by; may be repeated"),
    ] = None
    allowed_origins: Annotated[
        list[str] | None,
        Parameter(
            name="--allowed-origin",
            group=_REACHED,
            help="where pages of your own come from that may use it, such as http://localhost:3000; may be repeated",
        ),
    ] = None
    require_token: Annotated[
        bool | None, Parameter(group=_REACHED, help="let nobody in without a token, here neither")
    ] = None
    behind_proxy: Annotated[
        bool | None,
        Parameter(group=_REACHED, help="a proxy on the way has TLS, and says who the clients are (X-Forwarded-For)"),
    ] = None
    tls_cert: Annotated[
        Path | None, Parameter(group=_REACHED, help="the certificate (PEM, with its chain) for HTTPS")
    ] = None
    tls_key: Annotated[Path | None, Parameter(group=_REACHED, help="the certificate's key (PEM)")] = None
    data_dir: Annotated[
        Path | None, Parameter(group=_FOLDERS, help="where everything lies (~/.local/share/modelforge)")
    ] = None
    dataset_roots: Annotated[
        list[Path] | None,
        Parameter(
            name="--dataset-root",
            group=_FOLDERS,
            help="a folder that datasets may be read from by path; may be repeated (home and current directory)",
        ),
    ] = None
    model_roots: Annotated[
        list[Path] | None,
        Parameter(
            name="--model-root",
            group=_FOLDERS,
            help="a folder that models may be read from, and exported to; may be repeated (home and current directory)",
        ),
    ] = None
    reward_roots: Annotated[
        list[Path] | None,
        Parameter(
            name="--reward-root",
            group=_FOLDERS,
            help="a folder whose Python files trainings may run as reward functions; may be repeated (none)",
        ),
    ] = None
    llama_quantize: Annotated[
        Path | None, Parameter(group=_FOLDERS, help="llama.cpp's program of that name, where it is not on the PATH")
    ] = None
    isolate: Annotated[
        bool | None,
        Parameter(
            group=_WORK,
            help="let trainings, previews and the playground see the files of their work only (needs bubblewrap)",
        ),
    ] = None
    launcher: Annotated[
        Literal["local", "slurm"] | None,
        Parameter(group=_CLUSTER, help="who runs trainings and evaluations: this machine, or a Slurm cluster (local)"),
    ] = None
    shared_root: Annotated[
        Path | None,
        Parameter(group=_CLUSTER, help="where jobs, datasets and models lie for all nodes, at the same path on each"),
    ] = None
    cluster_partition: Annotated[
        str | None, Parameter(group=_CLUSTER, help="the partition of jobs that name none (Slurm's default)")
    ] = None
    cluster_account: Annotated[
        str | None, Parameter(group=_CLUSTER, help="the account of jobs that name none (the user's)")
    ] = None
    cluster_qos: Annotated[
        str | None, Parameter(group=_CLUSTER, help="the quality of service of jobs that name none (Slurm's default)")
    ] = None
    cluster_time_limit: Annotated[
        str | None, Parameter(group=_CLUSTER, help="the time of jobs that say none, as [D-]HH:MM:SS (the partition's)")
    ] = None
    cluster_nodes: Annotated[int | None, Parameter(group=_CLUSTER, help="the nodes of jobs that say none (1)")] = None
    cluster_gpus_per_node: Annotated[
        int | None, Parameter(group=_CLUSTER, help="the GPUs on each node of jobs that say none (0)")
    ] = None
    cluster_cpus_per_node: Annotated[
        int | None, Parameter(group=_CLUSTER, help="the processors on each node of jobs that say none (1)")
    ] = None
    cluster_memory: Annotated[
        str | None,
        Parameter(group=_CLUSTER, help="the memory on each node of jobs that say none, as 64G (Slurm's default)"),
    ] = None
    cluster_constraint: Annotated[
        str | None, Parameter(group=_CLUSTER, help="the features of nodes for jobs that say none, as a100&ib (none)")
    ] = None
    cold: Annotated[
        bool | None,
        Parameter(group=_WORK, help="start no trainer ahead of its job, and no worker ahead of a prompt"),
    ] = None
    on_end: Annotated[
        str | None, Parameter(group=_WORK, help="a command that is run when a job ends, without a shell (none)")
    ] = None
    log_format: Annotated[
        LogFormat | None,
        Parameter(group=_WORK, help="the server's log: console, json, or auto by what stderr is (auto)"),
    ] = None
    max_concurrent_jobs: Annotated[int | None, Parameter(group=_WORK, help="how many jobs may train at once (1)")] = (
        None
    )
    stop_grace_seconds: Annotated[
        float | None, Parameter(group=_WORK, help="what a trainer has for its last checkpoint (120)")
    ] = None
    stalled_seconds: Annotated[
        float | None, Parameter(group=_WORK, help="silence after which a job is shown as stalled (60)")
    ] = None
    playground_idle_seconds: Annotated[
        float | None, Parameter(group=_WORK, help="how long a model stays loaded after its last prompt (300)")
    ] = None
    playground_deadline_seconds: Annotated[
        float | None, Parameter(group=_WORK, help="how long an answer may take (120)")
    ] = None
    max_upload_bytes: Annotated[
        int | None, Parameter(group=_LIMITS, help="the largest dataset, as it comes and unpacked (20000000000)")
    ] = None
    reserve_disk_bytes: Annotated[
        int | None, Parameter(group=_LIMITS, help="what datasets leave free on the disk (2000000000)")
    ] = None
    max_body_bytes: Annotated[int | None, Parameter(group=_LIMITS, help="the largest JSON body (1000000)")] = None
    head_seconds: Annotated[
        float | None, Parameter(group=_LIMITS, help="how long the head of a request may take (20)")
    ] = None
    keepalive_seconds: Annotated[
        float | None, Parameter(group=_LIMITS, help="how long a connection may be idle between two requests (60)")
    ] = None
    still_seconds: Annotated[
        float | None, Parameter(group=_LIMITS, help="how long a client may send, or take, nothing (60)")
    ] = None
    request_seconds: Annotated[
        float | None, Parameter(group=_LIMITS, help="how long a request may take in all (21600)")
    ] = None
    max_connections: Annotated[int | None, Parameter(group=_LIMITS, help="connections at once (4096)")] = None
    max_connections_per_client: Annotated[
        int | None, Parameter(group=_LIMITS, help="connections of one address at once (1024)")
    ] = None
    max_sockets_per_client: Annotated[
        int | None, Parameter(group=_LIMITS, help="WebSockets of one client at once (256)")
    ] = None
    max_uploads: Annotated[int | None, Parameter(group=_LIMITS, help="uploads at once (8)")] = None
    max_requests_per_minute: Annotated[
        int | None, Parameter(group=_LIMITS, help="requests of one token in a minute (6000)")
    ] = None


_NONE_GIVEN = Flags()


def serve(*, flags: Annotated[Flags, Parameter(name="*")] = _NONE_GIVEN) -> int:
    """Run the server until Ctrl-C or SIGTERM; trainings go on without it, and the next one takes them up.

    What is not given by a flag is taken from the environment (MODELFORGE_PORT=9000), from modelforge.toml in the
    current directory (port = 9000), or is the default in parentheses.
    """
    settings = load_settings({name: value for name, value in vars(flags).items() if value is not None})

    import uvloop

    from modelforge.machine.hub_secrets import server_redaction
    from modelforge.server import serve
    from modelforge.server_log import configure_log

    configure_log(server_redaction(), settings.log_format)
    uvloop.run(serve(settings))
    return 0
