"""What a job asks of a cluster: a few things by name, each of a form that no line of a script can hide in."""

import re
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

_END = r"$(?!\n)"
ClusterName = Annotated[str, Meta(pattern=rf"^[A-Za-z0-9_][A-Za-z0-9_.-]{{0,63}}{_END}")]
"""Of a partition, an account, a quality of service."""
TimeLimit = Annotated[str, Meta(pattern=rf"^([0-9]{{1,3}}-)?[0-9]{{1,2}}:[0-5][0-9]:[0-5][0-9]{_END}")]
"""`HH:MM:SS`, or `D-HH:MM:SS`."""
Memory = Annotated[str, Meta(pattern=rf"^[1-9][0-9]{{0,6}}[MGT]{_END}")]
"""Of each node, in MiB, GiB or TiB."""
Constraint = Annotated[
    str, Meta(pattern=rf"^[A-Za-z0-9_][A-Za-z0-9_.-]*([&|][A-Za-z0-9_][A-Za-z0-9_.-]*)*{_END}", max_length=200)
]
"""Features that the nodes must have, joined by `&` or `|`."""


class ClusterRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, gc=False):
    """What a job asks of the cluster; what is null is the server's default, or the cluster's own.

    `time_limit`: as `HH:MM:SS` or `D-HH:MM:SS`. `memory`, `cpus_per_node` and `gpus_per_node` are of each node.
    `nodes`: over which the job's processes are spread evenly.
    """

    partition: ClusterName | None = None
    account: ClusterName | None = None
    qos: ClusterName | None = None
    time_limit: TimeLimit | None = None
    nodes: Annotated[int, Meta(ge=1, le=1024)] | None = None
    gpus_per_node: Annotated[int, Meta(ge=0, le=64)] | None = None
    cpus_per_node: Annotated[int, Meta(ge=1, le=1024)] | None = None
    memory: Memory | None = None
    constraint: Constraint | None = None

    def over(self, defaults: "ClusterRequest") -> "ClusterRequest":
        """This, with the defaults where it says nothing."""
        return ClusterRequest(
            **{
                name: getattr(defaults, name) if (own := getattr(self, name)) is None else own
                for name in self.__struct_fields__
            }
        )


def checked_cluster_request(request: ClusterRequest) -> ClusterRequest:
    """The same, read anew: a Struct that a program makes is checked by nobody else.

    Raises:
        ValueError: a value is of another form (msgspec.ValidationError is one).
    """
    return msgspec.convert(msgspec.to_builtins(request), ClusterRequest)


def seconds_of(limit: str) -> int:
    """The seconds of a time as Slurm writes it: `[D-]HH:MM:SS`, `MM:SS` or `infinite`, which is none: 0."""
    match = re.fullmatch(r"(?:([0-9]+)-)?(?:([0-9]+):)?([0-9]+):([0-9]+)", limit)
    if match is None:
        return 0
    days, hours, minutes, seconds = (int(one or 0) for one in match.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds
