"""The parts of a cluster, as `sinfo` writes them in the format that it is asked for here."""

import re
from collections.abc import Iterable

from modelforge.machine.cluster import Partition

PARTITION_FORMAT = "%P|%a|%l|%L|%D|%c|%m|%G"


def partitions_in(said: str) -> tuple[Partition, ...]:
    """The partitions of what sinfo said."""
    return _largest(_partition(line) for line in said.splitlines() if line)


def _partition(line: str) -> Partition:
    name, available, limit, default, nodes, cpus, memory, gpus = [*line.split("|", 7), *[""] * 7][:8]
    counts = [int(one) for one in re.findall(r"gpu:(?:[^:(),]+:)?([0-9]+)", gpus)]
    return Partition(
        name=name.removesuffix("*"),
        is_up=available == "up",
        is_default=name.endswith("*"),
        time_limit=limit,
        default_time=default,
        nodes=_number(nodes),
        cpus=_number(cpus),
        memory_mib=_number(memory),
        gpus=sum(counts),
    )


def _number(text: str) -> int:
    """A number that sinfo writes, which has a plus where nodes differ."""
    match = re.match(r"[0-9]+", text)
    return int(match[0]) if match else 0


def _largest(rows: Iterable[Partition]) -> tuple[Partition, ...]:
    """One line for each name: nodes of several kinds come as several. Whether one has all of it at once Slurm says."""
    found: dict[str, Partition] = {}
    for row in rows:
        one = found.get(row.name)
        found[row.name] = (
            row
            if one is None
            else Partition(
                name=row.name,
                is_up=one.is_up or row.is_up,
                is_default=row.is_default,
                time_limit=row.time_limit,
                default_time=row.default_time,
                nodes=one.nodes + row.nodes,
                cpus=max(one.cpus, row.cpus),
                memory_mib=max(one.memory_mib, row.memory_mib),
                gpus=max(one.gpus, row.gpus),
            )
        )
    return tuple(found.values())
