"""Attempts as jobs of a Slurm cluster, by its own commands."""
