"""Thirty functions on two declared GPUs, as a new user would try them."""
