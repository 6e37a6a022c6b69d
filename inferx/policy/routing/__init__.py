"""Routing: which warm pod serves a request, and whether to wait for one or wake another."""
