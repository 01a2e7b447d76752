"""The files of datasets: checked, stored by their content, and fetched from the hub."""
