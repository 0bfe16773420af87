"""Plain data: the recipes with their hyperparameters, what the lab report states, and its errata."""
