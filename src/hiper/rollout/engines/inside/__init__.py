"""Files that run inside an engine, where hiper is not installed. This folder alone is on the engine's PYTHONPATH."""
