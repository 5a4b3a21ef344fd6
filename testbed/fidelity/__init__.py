"""The emulated cluster against recordings of a real one."""
