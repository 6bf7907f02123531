"""Which bit widths lose least: each layer is tried by itself, and a knapsack chooses among what was found."""
