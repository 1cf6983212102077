"""What each command shows and writes; :mod:`hiper.cli` turns arguments into calls of these."""
