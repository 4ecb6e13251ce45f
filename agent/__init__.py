"""Perceive, plan, act; the policies that collect data; the agents ours is measured against."""
