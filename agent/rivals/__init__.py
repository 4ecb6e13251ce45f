"""What people would use instead of planning with a learned model, behind the same surface, to be measured beside it."""
