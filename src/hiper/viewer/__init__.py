"""The viewer: a small web server that shows runs, episodes and credit, and plays environments."""
