"""Rewards that can be checked: functions of a completion and of its record, instead of a reward model or beside."""
