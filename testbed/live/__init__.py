"""The emulated cluster in real time, behind real network interfaces."""
