"""What a request names, found, checked, and turned into the spec of a job. No HTTP here."""
