"""Goal tasks, rollouts, statistics and reports. May import everything; nothing imports it."""
