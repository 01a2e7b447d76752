"""What only a GPU shows of trainings: one script, one table, under 8 minutes on one card (docs/gpu.md)."""
