"""Placement: which GPUs a pod is started on."""
