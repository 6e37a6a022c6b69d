"""GPUs: what there is, who may use which part of it, and moving state off it and back."""
