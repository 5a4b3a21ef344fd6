"""The request-level engine: compiled programs, the numba kernel and its Python side."""
