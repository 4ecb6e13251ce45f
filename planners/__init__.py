"""Optimisers over action sequences. They see a cost function, bounds and generators, nothing else."""
