"""Thirty days in the life of a recommender, played in minutes with the real parts."""
