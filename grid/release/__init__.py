"""Giving back what a gateway ordered for a plan: one review, one act of persons, one release for each order."""
