"""This machine: its GPUs and processors, the limits of its cgroups, and child processes."""
