"""etcd as a store: what clusters of more than one machine run on."""
