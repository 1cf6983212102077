"""Everything on disk, read and written without torch."""
