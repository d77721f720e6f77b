"""Where the experts of a layer stand: placement and replication by what the network really carries."""
