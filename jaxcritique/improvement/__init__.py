"""Training-time supervision: self-improvement with the critic in the loop (section 5)."""
