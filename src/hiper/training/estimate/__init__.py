"""What a run would take before it is launched: memory by phase and part, time, disk, and whether it fits."""
