"""The batch script: what a request can put into it, and what it cannot."""

import re
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelforge.supervisor.slurm.batch_script import batch_script, is_safe_path, job_name
from trainer_entry import wire

FOLDER = Path("/shared/jobs/train_7/attempt-1")
NAME = job_name("0a1b2c3d", "train_7", 1)
_LINE = re.compile(r"#SBATCH --[a-z-]+(=[A-Za-z0-9_.:@/&|\"+-]+)?")
_texts = st.text(max_size=12) | st.from_regex(r"[a-z0-9]{1,4}(\n#SBATCH --uid=0|;id|\$\(id\)| --wrap x|%j|\"|\\)?")
_values = st.fixed_dictionaries(
    {},
    optional={
        **dict.fromkeys(("partition", "account", "qos", "time_limit", "memory", "constraint"), _texts),
        **dict.fromkeys(("nodes", "gpus_per_node", "cpus_per_node"), st.integers(-1, 2000) | _texts),
    },
)


@given(_values)
def test_no_value_makes_another_line_or_option(values: dict[str, object]) -> None:
    try:
        asked = msgspec.convert(values, wire.ClusterRequest)
    except msgspec.ValidationError:
        # then a program that makes one past the check is refused by the script itself
        with pytest.raises(ValueError, match=r"\$\."):
            batch_script(NAME, FOLDER, wire.ClusterRequest(**values), 120)  # type: ignore[arg-type]
        return
    lines = batch_script(NAME, FOLDER, asked, 120).splitlines()
    plain = batch_script(NAME, FOLDER, wire.ClusterRequest(), 120).splitlines()
    named = [name for name, value in values.items() if name != "nodes" and value]
    options = [line for line in lines if line.startswith("#")]
    assert len(options) == len([line for line in plain if line.startswith("#")]) + len(named)
    assert all(_LINE.fullmatch(line) for line in options[1:])
    assert lines[-1].startswith("exec srun --nodes=")


@pytest.mark.parametrize("path", ["/a b", "/a\nb", "/a%j", "/a$(id)", "a", '/a"b', "/ä"])
def test_a_path_that_slurm_or_a_shell_would_read_is_none(path: str) -> None:
    assert not is_safe_path(Path(path))
    with pytest.raises(ValueError, match="not for a batch script"):
        batch_script(NAME, Path(path), wire.ClusterRequest(), 120)


def test_the_script_has_what_an_attempt_needs_to_run_once_and_end_in_time() -> None:
    asked = wire.ClusterRequest(partition="gpu", nodes=2, gpus_per_node=4, memory="64G", constraint="a100&ib")
    script = batch_script(NAME, FOLDER, asked, 120)
    for line in (
        "--job-name=mf-0a1b2c3d-train_7-1",
        "--no-requeue",
        "--dependency=singleton",
        "--signal=USR2@180",
        "--nodes=2",
        "--gpus-per-node=4",
        "--mem=64G",
        '--constraint="a100&ib"',
    ):
        assert f"#SBATCH {line}\n" in script
    assert "--ntasks-per-node=1 --input=none" in script
    assert script.endswith(f"trainer_entry.cluster_step {FOLDER}\n")


def test_the_longest_grace_is_one_that_slurm_takes() -> None:
    assert "#SBATCH --signal=USR2@65535\n" in batch_script(NAME, FOLDER, wire.ClusterRequest(), 86_400)


def test_what_a_job_says_wins_over_the_servers_defaults() -> None:
    defaults = wire.ClusterRequest(partition="main", nodes=2, gpus_per_node=1)
    assert wire.ClusterRequest(nodes=1, gpus_per_node=0).over(defaults) == wire.ClusterRequest(
        partition="main", nodes=1, gpus_per_node=0
    )


@pytest.mark.parametrize(
    ("limit", "seconds"), [("1-00:00:00", 86_400), ("0:30:00", 1800), ("30:00", 1800), ("infinite", 0)]
)
def test_a_time_is_read_as_slurm_writes_it(limit: str, seconds: int) -> None:
    assert wire.seconds_of(limit) == seconds
