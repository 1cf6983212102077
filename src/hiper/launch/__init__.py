"""Launchers: what starts commands in processes of their own."""
