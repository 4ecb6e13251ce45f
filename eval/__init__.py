"""Pairs of start and goal, trials, statistics and reports. May import everything; nothing imports it."""
