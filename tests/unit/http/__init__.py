"""Tests of HTTP without servers."""
