"""Labelled data of a user's own: which variables are the fields, what its dimensions are, and labels for a forecast."""
