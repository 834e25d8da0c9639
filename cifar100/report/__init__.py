"""Figures of runs and models. Plotting libraries load only inside the functions that draw."""
