"""The training loop, and the parts that begin, schedule, measure and recover a run."""
