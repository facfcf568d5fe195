"""Apportion: a licensing engine for platforms that sell through a tree of partners."""
