"""Finds the bit widths that lose the least: tries each layer by itself, and a knapsack chooses among the results."""
