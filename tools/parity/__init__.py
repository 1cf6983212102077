"""A comparison of the ALFWorld engine with TextWorld. It needs the extra ``textworld``."""
