"""Test-time supervision: the critic beside the actor when it is evaluated."""
