"""Training in random subspaces (Li et al.; Minut)."""
