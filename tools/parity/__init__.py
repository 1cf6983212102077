"""Plays ALFWorld games beside TextWorld. It needs the extra ``textworld``; `python tools/parity -h` says how."""
