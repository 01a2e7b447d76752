"""What a job asks of a cluster, beside the partitions that Slurm shows."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from modelforge.admission.cluster import check_cluster_request
from modelforge.admission.context import Admission
from modelforge.errors import BadInput
from modelforge.layout import Layout
from modelforge.machine.cluster import Partition
from modelforge.settings import load_settings
from trainer_entry import wire

MAIN = Partition(
    name="main",
    is_up=True,
    is_default=True,
    time_limit="1:00:00",
    default_time="n/a",
    nodes=3,
    cpus=2,
    memory_mib=2000,
    gpus=2,
)
POWERED_DOWN = {"nodes": 0, "cpus": 0, "memory_mib": 0, "gpus": 0}


async def check(asked: dict[str, Any], partition: dict[str, Any]) -> None:
    """Of a server with 120 s of grace, by which the least that a job needs is 240 s."""

    async def partitions() -> tuple[Partition, ...]:
        return (msgspec.structs.replace(MAIN, **partition),)

    none: Any = None
    admission = Admission(
        settings=load_settings({"stop_grace_seconds": 120.0}, environ={}),
        layout=Layout(Path("/data")),
        indexes=none,
        handler=none,
        fetches=none,
        workers=none,
        spare_bytes=none,
        partitions=partitions,
    )
    await check_cluster_request(admission, wire.ClusterRequest(**asked), processes=asked.get("nodes", 1))


@pytest.mark.parametrize(
    ("asked", "partition"),
    [
        ({"nodes": 4, "cpus_per_node": 64, "gpus_per_node": 8, "memory": "512G"}, POWERED_DOWN),
        ({}, POWERED_DOWN),
        ({}, {}),
        ({}, {"default_time": "4:00"}),
        ({}, {"default_time": "infinite", "time_limit": "infinite"}),
        ({"time_limit": "0:04:00"}, {"default_time": "2:00"}),
        ({"time_limit": "4-00:00:00", "qos": "long"}, {}),
        ({"qos": "long"}, {"default_time": "2:00"}),
    ],
)
async def test_what_a_partition_may_give_is_left_to_slurm(asked: dict[str, Any], partition: dict[str, Any]) -> None:
    await check(asked, partition)


@pytest.mark.parametrize(
    ("asked", "partition", "field", "words"),
    [
        ({"cpus_per_node": 3}, {}, "cluster", "main has 2 processors"),
        ({"time_limit": "1:00:01"}, {}, "cluster", "main has 3600 seconds at most"),
        ({"time_limit": "1:00:01"}, POWERED_DOWN, "cluster", "main has 3600 seconds at most"),
        ({}, {"default_time": "3:59"}, "cluster.time_limit", "has 239 s in main.* give cluster.time_limit"),
        ({}, {"default_time": "2:00", "time_limit": "infinite"}, "cluster.time_limit", "give cluster.time_limit"),
        *(
            ({}, {"default_time": default, "time_limit": "2:00"}, "cluster.time_limit", "name another partition")
            for default in ("n/a", "NONE", "", "2:00")
        ),
    ],
)
async def test_what_a_partition_cannot_give_is_refused_by_name(
    asked: dict[str, Any], partition: dict[str, Any], field: str, words: str
) -> None:
    with pytest.raises(BadInput, match=words) as raised:
        await check(asked, partition)
    assert raised.value.field == field
