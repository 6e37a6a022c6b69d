"""The commands of a cluster's users: each asks the gateway, as one who holds a key."""
