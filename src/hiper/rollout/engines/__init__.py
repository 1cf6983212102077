"""Inference engines: installed in environments of their own, started, spoken to over HTTP, and checked."""
