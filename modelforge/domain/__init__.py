"""Pure decisions: no await, no clock, no file, no random."""
