"""A simulation of thirty days of a recommender, in minutes, with the real components."""
