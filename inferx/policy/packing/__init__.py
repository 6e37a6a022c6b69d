"""Packing: which node and which GPUs take one more pod, so that later pods still fit."""
