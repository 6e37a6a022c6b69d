"""What the gateway serves beside inference: objects, views, keys, health, and a page to look at."""
