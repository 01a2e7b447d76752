"""What a job asks of the cluster: refused by name where the cluster, or the server, cannot give it."""

import msgspec

from modelforge.admission.context import Admission
from modelforge.admission.estimate.capacity import Capacity
from modelforge.errors import BadInput
from modelforge.machine.cluster import Partition
from trainer_entry import wire

SHORTEST_SECONDS = 120
"""Of a time limit beyond the grace: Slurm's signal before its end comes up to two minutes early."""
_MIB = {"M": 1, "G": 1024, "T": 1024 * 1024}


async def check_cluster_request(
    admission: Admission, asked: wire.ClusterRequest | None, processes: int
) -> wire.ClusterRequest | None:
    """What the job asks for, with the server's defaults; None where it runs on the server's machine.

    Raises:
        BadInput: there is no cluster, or no partition that could give it.
    """
    if admission.partitions is None:
        if asked is not None:
            raise BadInput(
                "This server has no cluster",
                "It runs trainings on its own machine: leave `cluster` out, or start it with --launcher slurm.",
                field="cluster",
            )
        return None
    settings = admission.settings
    whole = (asked or wire.ClusterRequest()).over(settings.cluster)
    nodes = whole.nodes or 1
    if processes % nodes:
        raise BadInput(
            "The processes cannot be spread evenly over the nodes",
            f"num_processes is {processes}, and cluster.nodes is {nodes}: give a multiple of it, at least one each.",
            field="num_processes",
        )
    if whole.gpus_per_node and processes // nodes > whole.gpus_per_node:
        raise BadInput(
            "A node has fewer GPUs than processes",
            f"{processes // nodes} processes on each node share {whole.gpus_per_node} GPUs: give more gpus_per_node.",
            field="cluster",
        )
    least = settings.stop_grace_seconds + SHORTEST_SECONDS
    if whole.time_limit is not None and wire.seconds_of(whole.time_limit) < least:
        raise BadInput(
            "The time limit leaves no time to train",
            f"cluster.time_limit is {whole.time_limit}: a checkpoint before its end takes up to {least:.0f} s; "
            "give more.",
            field="cluster",
        )
    partitions = await admission.partitions()
    if partitions is not None:  # else Slurm says it once it answers
        _check_partition(whole, partitions, least)
    return whole


def gpus_asked(admission: Admission, asked: wire.ClusterRequest | None) -> int | None:
    """How many GPUs of the cluster a job asks for; None where it runs on the server's machine."""
    if admission.partitions is None:
        return None
    whole = (asked or wire.ClusterRequest()).over(admission.settings.cluster)
    return (whole.gpus_per_node or 0) * (whole.nodes or 1)


def _check_partition(asked: wire.ClusterRequest, partitions: tuple[Partition, ...], least: float) -> None:
    partition = partition_of(asked, partitions)
    if partition is None:
        if asked.partition is None:
            return
        raise BadInput(
            "The cluster has no such partition",
            f"cluster.partition is {asked.partition}; there are {', '.join(one.name for one in partitions)}.",
            field="cluster",
        )
    wishes: list[tuple[str, int, int, str]] = []
    if partition.nodes:  # else they are powered down, as in a cloud, and what they have is not known
        wishes += [
            ("nodes", asked.nodes or 1, partition.nodes, "nodes"),
            ("gpus_per_node", asked.gpus_per_node or 0, partition.gpus, "GPUs on its largest node"),
            ("cpus_per_node", asked.cpus_per_node or 0, partition.cpus, "processors on its largest node"),
            ("memory", _mib(asked.memory), partition.memory_mib, "MiB on its largest node"),
        ]
    limit = wire.seconds_of(partition.time_limit)
    if limit and asked.qos is None:  # which may lift the limit
        wishes.append(("time_limit", wire.seconds_of(asked.time_limit or "0:00:00"), limit, "seconds at most"))
    for name, wanted, has, of_what in wishes:
        if wanted > has:
            raise BadInput(
                "The partition cannot give what the job asks for",
                f"cluster.{name} comes to {wanted}, and {partition.name} has {has} {of_what}.",
                field="cluster",
            )
    if asked.time_limit is None and asked.qos is None:
        _check_default_time(partition, limit, least)


def _check_default_time(partition: Partition, limit: int, least: float) -> None:
    """Refuse a job that asks for no time, where what it gets then is too short: each attempt would end the same."""
    given = wire.seconds_of(partition.default_time) or limit
    if not given or given >= least:
        return
    remedy = f"name another partition: it gives {limit} s at most" if 0 < limit < least else "give cluster.time_limit"
    raise BadInput(
        "The partition's own time leaves no time to train",
        f"A job without cluster.time_limit has {given} s in {partition.name}, and a checkpoint before its end takes up "
        f"to {least:.0f} s: {remedy}.",
        field="cluster.time_limit",
    )


def partition_of(asked: wire.ClusterRequest, partitions: tuple[Partition, ...]) -> Partition | None:
    """The partition that a job goes to."""
    for one in partitions:
        if one.is_default if asked.partition is None else one.name == asked.partition:
            return one
    return None


async def cluster_capacity(admission: Admission, asked: wire.ClusterRequest) -> Capacity:
    """The memory of each node for a job; nothing is known of a GPU's, and then it is 0."""
    partitions = None if admission.partitions is None else await admission.partitions()
    partition = partition_of(asked, partitions or ())
    nodes = asked.nodes or 1
    if asked.gpus_per_node:
        return Capacity(device="gpu", available=0, total=0, nodes=nodes)
    mib = _mib(asked.memory) or (0 if partition is None else partition.memory_mib)
    return Capacity(device="host", available=mib << 20, total=mib << 20, nodes=nodes)


async def evaluation_capacity(admission: Admission) -> Capacity | None:
    """The memory for an evaluation, which has one node of what the settings ask for; None on the server's machine."""
    if admission.partitions is None:
        return None
    return await cluster_capacity(admission, msgspec.structs.replace(admission.settings.cluster, nodes=1))


def _mib(memory: str | None) -> int:
    return 0 if memory is None else int(memory[:-1]) * _MIB[memory[-1]]
