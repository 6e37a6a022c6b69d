"""Replays arrivals of placement requests: nobody is served, nothing leaves, bins fill up."""
