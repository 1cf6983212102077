"""Showing things: the terminal, tables, transcripts of episodes, figures."""
