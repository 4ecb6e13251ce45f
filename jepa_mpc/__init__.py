"""Robots that plan from pixels: a world model learned from reward-free trajectories, and search in its latent space."""
