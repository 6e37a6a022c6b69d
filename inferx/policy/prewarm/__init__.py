"""Prewarming: state brought up before anybody asks for it."""
