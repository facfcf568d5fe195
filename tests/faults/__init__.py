"""Faults, pressure and adversity: what the service survives, each in a short form and in a long one."""
