"""A JEPA learned from reward-free trajectories. Knows nothing of simulators or planners."""
