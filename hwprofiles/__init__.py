"""Hardware as data: GPUs, nodes, fabrics and clusters from TOML files in which every number has a unit and a source."""
