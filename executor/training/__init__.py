"""`plan train`: a whole training by recipe. One idea a file; `recipe*`, `reader` and `schedule` need no torch."""
