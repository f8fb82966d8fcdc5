"""From files to batches: windows of trajectories, mixed over data sets."""
