"""Sub-commands that inspect, plan and prune."""
